"""Embeddings and rankings, asked for by the official `openai` Python client."""

from typing import Any

import openai
import pytest
from openai import OpenAI


def test_embeddings_come_back_as_numbers_and_as_base64(client: OpenAI) -> None:
    """The client asks for base64 by itself and decodes it; floats only when told."""
    model = "ollm::embedding_model_name::sim_embed"
    packed = client.embeddings.create(model=model, input=["one two", "three"])
    plain = client.embeddings.create(
        model=model, input=["one two", "three"], encoding_format="float"
    )
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.model == model
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (3, 3)


def test_tokens_and_dimensions_reach_the_embedding_model(client: OpenAI) -> None:
    answer = client.embeddings.create(
        model="ollm::embedding_model_name::sim_embed", input=[[1, 2], [3]], dimensions=4
    )
    assert [len(item.embedding) for item in answer.data] == [4, 4]
    assert answer.usage.prompt_tokens == 3


def test_an_embedding_model_without_its_prefix_is_served_with_a_warning(client: OpenAI) -> None:
    bare = client.embeddings.with_raw_response.create(model="sim_embed", input="a")
    named = client.embeddings.with_raw_response.create(
        model="ollm::embedding_model_name::sim_embed", input="a"
    )
    assert bare.headers["warning"].startswith("299 ")
    assert "warning" not in named.headers
    assert bare.parse().data[0].embedding == named.parse().data[0].embedding


def test_an_empty_input_is_refused_with_its_place(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="sim_embed", input=[])
    assert refused.value.param == "input"


def test_documents_are_ranked(client: OpenAI) -> None:
    """OpenAI has no such endpoint: the client's own way to call another one."""
    body = {"model": "sim_rerank", "query": "red fish", "documents": ["blue", {"text": "red fish"}]}
    answer: Any = client.post("/rerank", body={**body, "return_documents": True}, cast_to=object)
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][0]["document"] == {"text": "red fish"}


def test_a_model_of_a_provider_without_the_endpoint_cannot_rank(client: OpenAI) -> None:
    body = {"model": "near_sim_chat", "query": "a", "documents": ["b"]}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/rerank", body=body, cast_to=object)
    assert (refused.value.code, refused.value.param) == ("unsupported_value", "model")
