"""The check of POST /v1/rerank as tables: what passes, and what is wrong with the rest."""

import json
from typing import Any

import pytest

from shared.dialects import rerank
from shared.dialects.rerank import MAX_DOCUMENTS
from shared.errors import InvalidRequest


def body(**fields: Any) -> bytes:
    """A good body with these fields on top; a field set to `...` is left out."""
    whole = {"model": "sim_rerank", "query": "who", "documents": ["me", {"text": "you"}], **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    "good",
    [
        body(),
        body(top_n=1, return_documents=True),
        body(top_n=None, return_documents=None, max_tokens_per_doc=512),
        body(documents=[{"text": "", "title": "kept"}]),
        body(**{"ollm::tags": {"a": "b"}, "ollm::dryrun": True}),
    ],
)
def test_a_good_body_passes(good: bytes) -> None:
    assert rerank.parse(good).model == "sim_rerank"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (b'"text"', None),
        (body(model=...), "model"),
        (body(query=...), "query"),
        (body(query=5), "query"),
        (body(query=""), "query"),
        (body(documents=...), "documents"),
        (body(documents="a"), "documents"),
        (body(documents=[]), "documents"),
        (body(documents=[1]), "documents.0"),
        (body(documents=["a", None]), "documents.1"),
        (body(documents=[{}]), "documents.0.text"),
        (body(documents=[{"text": 1}]), "documents.0.text"),
        (body(documents=["a"] * (MAX_DOCUMENTS + 1)), "documents"),
        (body(top_n=0), "top_n"),
        (body(top_n="1"), "top_n"),
        (body(return_documents="yes"), "return_documents"),
        (body(**{"ollm::tags": 5}), "ollm::tags"),
        (body(**{"ollm::dryrun": 1}), "ollm::dryrun"),
        (body(**{"ollm::deny_unknown_fields": True, "x": 1}), "x"),
    ],
)
def test_a_wrong_body_is_refused_and_the_error_names_the_place(
    wrong: bytes, param: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rerank.parse(wrong)
    assert refused.value.param == param


def test_characters_are_those_of_the_query_and_of_all_documents() -> None:
    fields = {"query": "who", "documents": ["me", {"text": "you", "title": "not counted"}]}
    assert rerank.count_characters(fields) == 8
