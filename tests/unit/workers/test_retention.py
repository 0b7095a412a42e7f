"""What zero-retention providers are asked for and say, read without trusting its shape."""

import json
import re
from typing import Any

import pytest

from shared.document import Provider
from shared.transcript import ZdrAnswer
from tests.vectors import vector
from workers.inference.retention import Retention
from workers.providers.vercel import VercelProvider

GATEWAY: dict[str, Any] = {
    "routing": {
        "finalProvider": "bedrock",
        "planningReasoning": "p" * 500,
        "attempts": [{"provider": "a"}, {"provider": "b"}],
    },
    "cost": "0.000543",
    "generationId": "gen_1",
}


def an_answer(gateway: Any, *, kind: str = "message") -> bytes:
    said = {"content": "x", "provider_metadata": {"gateway": gateway}}
    return json.dumps({"choices": [{kind: said}]}).encode()


def noted(*parts: bytes) -> ZdrAnswer:
    retention = Retention()
    retention.answered(parts)
    return retention.answer()


@pytest.mark.parametrize("kind", ["message", "delta"])
def test_what_the_provider_says_is_noted_from_answers_and_chunks(kind: str) -> None:
    first = b'{"choices":[{"delta":{"content":"x"}}]}'
    last = b'{"choices":[],"usage":{}}'
    answer = noted(first, an_answer(GATEWAY, kind=kind), last)
    assert (answer.generation_id, answer.final_provider) == ("gen_1", "bedrock")
    assert (answer.attempts, answer.cost, answer.planning) == (2, "0.000543", "p" * 200)


@pytest.mark.parametrize("flags", [(True, True), (True, False), (False, False)])
def test_the_flags_are_those_of_the_bytes_that_left(flags: tuple[bool, bool]) -> None:
    options = {"zeroDataRetention": flags[0], "disallowPromptTraining": flags[1]}
    retention = Retention()
    retention.sent(json.dumps({"providerOptions": {"gateway": options}}).encode())
    answer = retention.answer()
    assert (answer.zero_data_retention, answer.disallow_prompt_training) == flags


@pytest.mark.parametrize(
    "body", [b"{}", b"no json", b'{"providerOptions":{"gateway":{"zeroDataRetention":1}}}']
)
def test_flags_that_were_not_sent_are_not_claimed(body: bytes) -> None:
    retention = Retention()
    retention.sent(body)
    assert not retention.answer().zero_data_retention


def test_every_call_asks_for_both() -> None:
    provider = VercelProvider("v", Provider(), base_url="http://v.invalid", api_key="k")
    asked = {"model": "m", "providerOptions": {"gateway": {"zeroDataRetention": False}}}
    request = provider.request("chat.completions", asked, row_id="r1", timeouts={})
    retention = Retention()
    retention.sent(request.read())
    answer = retention.answer()
    assert answer.zero_data_retention
    assert answer.disallow_prompt_training


@pytest.mark.parametrize(
    "gateway",
    [
        None, 1, [], "x", {}, {"routing": 1}, {"routing": {"attempts": 3, "finalProvider": []}},
        {"cost": 0.1, "generationId": {}},
    ],
)  # fmt: skip
def test_what_is_of_another_shape_is_left_out(gateway: Any) -> None:
    assert noted(an_answer(gateway)) == ZdrAnswer()


@pytest.mark.parametrize(
    "part",
    [
        b'"provider_metadata"',
        b'{"choices":[{"message":"provider_metadata"}]}',
        b"\xff" + b'"provider_metadata"',
    ],
)
def test_what_cannot_be_read_is_left_out(part: bytes) -> None:
    assert noted(part) == ZdrAnswer()


def test_the_recorded_answer_is_read() -> None:
    text = vector("vercel-ai-gateway/simple.yaml").decode()
    found = re.search(r"body: '(\{\"id\":\"gen_.*\})'\n", text)
    assert found is not None
    answer = noted(found[1].replace("''", "'").encode())
    assert (answer.final_provider, answer.attempts, answer.cost) == ("anthropic", 1, "0.000543")
    assert answer.generation_id == "gen_01KKHTNQZDDZJESK91MNFBRAV3"
    assert answer.planning.startswith("System credentials planned for: anthropic")


def test_the_recorded_stream_is_read() -> None:
    text = vector("vercel-ai-gateway/simple_streaming.yaml").decode()
    events = [event.encode() for event in re.findall(r"data: (\{.*\})", text)]
    answer = noted(*events)
    assert answer.final_provider
    assert answer.generation_id.startswith("gen_")
