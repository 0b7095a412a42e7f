"""Models, headers and our own fields, asked for by the official `openai` Python client."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import clickhouse_connect
import openai
import pytest
from openai import OpenAI

from tests.e2e.ledger import Books
from tests.e2e.openai_python.talk import MESSAGES, TEXT, failure, text_of
from tests.e2e.started import StartedGateway, until


def test_models_are_listed_and_found_by_name(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"sim_echo", "near_sim_chat", "phala_sim_chat", "vercel_sim_chat"} <= listed.keys()
    found = client.models.retrieve("near_sim_chat")
    assert found == listed["near_sim_chat"]
    assert (found.model_extra or {})["model_info"]["tier"] == "TEE"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no_such_model")
    hidden = {model.id for model in client.models.list(extra_query={"allow_tee": "false"})}
    assert "sim_echo" in hidden
    assert "near_sim_chat" not in hidden


def test_headers_tell_the_request_its_cost_and_its_times(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sim_echo", messages=MESSAGES, extra_headers={"x-request-id": "mine"}
    )
    answer, headers = raw.parse(), raw.headers
    request_id = UUID(headers["x-request-id"])
    assert request_id.version == 7
    assert answer.id == f"chatcmpl-{request_id.hex}"
    assert headers["otari-request-id"] == headers["x-request-id"]
    assert answer.usage is not None
    price_in, price_out = Decimal("0.5"), Decimal("1.5")
    cost = price_in * answer.usage.prompt_tokens + price_out * answer.usage.completion_tokens
    assert Decimal(headers["x-ollm-cost-usd"]) == cost / 1_000_000
    assert 0 < float(headers["x-ollm-overhead-ms"]) < 5000
    timings = {part.split(";")[0].strip() for part in headers["server-timing"].split(",")}
    assert timings == {"auth", "queue", "upstream", "relay"}


@pytest.mark.parametrize("tier", ["auto", "default", "flex", "priority"])
def test_every_service_tier_is_served(client: OpenAI, tier: Any) -> None:
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES, service_tier=tier)
    assert answer.choices[0].message.content == TEXT
    assert answer.service_tier


def test_tags_and_episode_come_back_in_the_answer_and_the_spend_row(
    gateway: StartedGateway, client: OpenAI
) -> None:
    episode = str(uuid4())
    ours = {"ollm::tags": {"team": "blau"}, "ollm::episode_id": episode}
    raw = client.chat.completions.with_raw_response.create(
        model="near_sim_chat",
        messages=MESSAGES,
        service_tier="flex",
        extra_body=ours,
        extra_headers={"x-request-id": "mine-7"},
    )
    assert (raw.parse().model_extra or {})["episode_id"] == episode
    until(lambda: bool(spend(gateway, raw.headers["x-request-id"])), 20)
    told = ("completed", "flex", "TEE", {"team": "blau"}, "mine-7")
    assert spend(gateway, raw.headers["x-request-id"]) == [(*told, UUID(episode).hex)]


def spend(gateway: StartedGateway, request_id: str) -> Any:
    client = clickhouse_connect.get_client(dsn=gateway.ready.clickhouse_url)
    try:
        return client.query(
            "SELECT status, lane, tier, tags, client_request_id, episode_id FROM spend"
            " WHERE request_id = %(id)s",
            {"id": request_id},
        ).result_rows
    finally:
        client.close()


def test_raw_usage_and_raw_response_are_added_when_asked_for(client: OpenAI) -> None:
    ours = {"ollm::include_raw_usage": True, "ollm::include_raw_response": True}
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES, extra_body=ours)
    extra = answer.model_extra or {}
    (usage,), (response,) = extra["ollm_raw_usage"], extra["ollm_raw_response"]
    assert UUID(usage["model_inference_id"]).version == 7
    assert usage["provider_type"] == "openai"
    assert answer.usage is not None
    assert usage["data"]["total_tokens"] == answer.usage.total_tokens
    assert json.loads(response["data"])["choices"][0]["message"]["content"] == TEXT


def test_a_stream_carries_raw_chunks_and_raw_usage_when_asked_for(client: OpenAI) -> None:
    ours = {"ollm::include_raw_usage": True, "ollm::include_raw_response": True}
    with client.chat.completions.create(
        model="sim_echo",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=ours,
    ) as stream:
        chunks = list(stream)
    raw = [json.loads((chunk.model_extra or {})["ollm_raw_chunk"]) for chunk in chunks]
    spoken = [c["choices"][0]["delta"].get("content") or "" for c in raw if c["choices"]]
    assert "".join(spoken) == TEXT == text_of(chunks)
    (usage,) = (chunks[-1].model_extra or {})["ollm_raw_usage"]
    assert usage["data"] == raw[-1]["usage"]
    error = failure(client, "sim_echo", stream=True, extra_body={"ollm::include_raw_usage": True})
    assert error.status_code == 400


def test_unknown_fields_pass_unless_they_are_denied(client: OpenAI) -> None:
    stray = {"zebra": 1, "apple": {"b": 2}}
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES, extra_body=stray)
    assert answer.choices[0].message.content == TEXT
    denied = {**stray, "ollm::deny_unknown_fields": True}
    error = failure(client, "sim_echo", extra_body=denied)
    assert (error.status_code, error.code) == (400, "unknown_parameter")
    assert "apple, zebra" in error.message


def test_a_dry_run_is_answered_and_is_found_in_no_ledger_of_ours(
    client: OpenAI, gateway: StartedGateway
) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    dry = set()
    for stream in (False, True):
        answer: Any = client.chat.completions.create(
            model="sim_echo", messages=MESSAGES, stream=stream, extra_body={"ollm::dryrun": True}
        )
        chunks = list(answer) if stream else []
        assert (text_of(chunks) if stream else answer.choices[0].message.content) == TEXT
        dry.add((chunks[0] if stream else answer).id.removeprefix("chatcmpl-"))
    paid = client.chat.completions.create(model="sim_echo", messages=MESSAGES)
    stored = paid.id.removeprefix("chatcmpl-")
    until(lambda: stored in {row.request_id for row in books.rows(since)}, 30)
    assert len(books.calls(since)) == 3
    assert not dry & {row.request_id for row in books.rows(since)}


def test_a_lane_that_a_key_may_not_have_is_not_bought_at_the_provider(
    gateway: StartedGateway,
) -> None:
    made = gateway.run("keys", "create", "--name=flex", "--best-lane=flex")
    ready = gateway.ready
    with OpenAI(base_url=f"{ready.base_url}/v1", api_key=made.stdout.strip()) as limited:
        answer = limited.chat.completions.create(
            model="sim_echo", messages=MESSAGES, service_tier="priority"
        )
    assert answer.service_tier == "flex"
