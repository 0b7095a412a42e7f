"""The official Cohere client, unmodified, for what OpenAI's has no words for."""

from collections.abc import Iterator

import cohere
import pytest

from tests.e2e.started import StartedGateway

DOCUMENTS = ["blue bird", "red fish", "red car"]


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[cohere.Client]:
    ready = gateway.ready
    with cohere.Client(base_url=ready.base_url, api_key=ready.api_key, timeout=30) as opened:
        yield opened


def test_documents_are_ranked_best_first(client: cohere.Client) -> None:
    answer = client.rerank(model="sim_rerank", query="red fish", documents=DOCUMENTS, top_n=2)
    assert [result.index for result in answer.results] == [1, 2]
    assert answer.results[0].relevance_score == 1.0
    assert answer.id


def test_documents_come_back_when_asked_for(client: cohere.Client) -> None:
    answer = client.rerank(
        model="sim_rerank", query="red fish", documents=DOCUMENTS, return_documents=True
    )
    told = [result.document.text for result in answer.results if result.document]
    assert told == ["red fish", "red car", "blue bird"]


def test_a_wrong_request_is_the_clients_own_error(client: cohere.Client) -> None:
    with pytest.raises(cohere.BadRequestError):
        client.rerank(model="sim_rerank", query="", documents=DOCUMENTS)
    with pytest.raises(cohere.NotFoundError):
        client.rerank(model="unheard_of", query="a", documents=DOCUMENTS)


def test_the_later_client_is_served_as_well(gateway: StartedGateway) -> None:
    ready = gateway.ready
    with cohere.ClientV2(base_url=ready.base_url, api_key=ready.api_key, timeout=30) as client:
        answer = client.rerank(model="sim_rerank", query="red fish", documents=DOCUMENTS, top_n=2)
    assert [result.index for result in answer.results] == [1, 2]
