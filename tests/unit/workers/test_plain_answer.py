"""The short way of a whole answer says and counts what the ordinary way does, or leaves it to it."""

import json
from typing import Any

import pytest

from shared.clock import StillClock
from shared.price import Price
from shared.usage import Usage
from tests.unit.workers.jobs import INPUT_ESTIMATE, a_header, an_attempt
from workers.inference.chat import ChatAnswer
from workers.inference.plain_answer import rewrite
from workers.inference.upstream_errors import AttemptFailed

MESSAGE: dict[str, Any] = {"role": "assistant", "content": "hi", "refusal": None, "annotations": []}
CHOICE = {"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 8,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 4, "other": None},
}
HEAD = {"id": "theirs", "object": "x", "created": 17, "model": "up"}
PLAIN: dict[str, Any] = {**HEAD, "choices": [CHOICE], "usage": USAGE}
HEADER = a_header(asked_model="as/asked")
OURS = {"id": "ours", "object": "chat.completion", "model": "as/asked", "episode_id": "e"}

FITTING: list[dict[str, Any]] = [
    PLAIN,
    {**PLAIN, "service_tier": "flex", "system_fingerprint": "fp", "further": {"deep": [1]}},
    {**HEAD, "further": {"choice": 1}, "choices": [CHOICE, CHOICE], "usage": USAGE},
    {
        **PLAIN,
        "choices": [{**CHOICE, "message": {**MESSAGE, "content": "\u00e4\U0001f600\u2028"}}],
    },
    {**PLAIN, "choices": [{**CHOICE, "message": {**MESSAGE, "reasoning": "r", "content": None}}]},
    {**PLAIN, "choices": [{**CHOICE, "finish_reason": None}]},
    {**PLAIN, "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    {**PLAIN, "error": None},
    {"before": 'a quote" and "choices":', **PLAIN},
]
OTHERS: list[dict[str, Any]] = [
    {**PLAIN, "choices": [{**CHOICE, "message": {**MESSAGE, "tool_calls": [{"function": {}}]}}]},
    {**PLAIN, "choices": [{**CHOICE, "message": {**MESSAGE, "content": [{"text": "parts"}]}}]},
    {**PLAIN, "choices": ["odd"]},
    {**PLAIN, "choices": []},
    {**PLAIN, "choices": None},
    {**PLAIN, "error": {"message": "died"}},
    {"error": {"message": "died"}, **PLAIN},
    {**PLAIN, "usage": None},
    {**PLAIN, "usage": {**USAGE, "prompt_tokens": -1}},
    {**PLAIN, "usage": {**USAGE, "prompt_tokens": True}},
    {**PLAIN, "usage": {**USAGE, "prompt_tokens": 1 << 53}},
    {**PLAIN, "usage": {**USAGE, "prompt_tokens_details": None}},
    {**PLAIN, "service_tier": None, "system_fingerprint": ""},
    {**PLAIN, "created": 0},
    {"choices": [CHOICE], "usage": USAGE, **HEAD},
    {"usage": USAGE, **HEAD, "choices": [CHOICE]},
    {**HEAD, "service_tier": "flex", "choices": [CHOICE], "usage": USAGE},
    {"before": {"choices": [CHOICE]}, **PLAIN},
    {**HEAD, "usage": USAGE},
]


def told(data: bytes) -> Any:
    """The client's document and what was counted, or the failure."""
    attempt = an_attempt(HEADER, price=Price())
    answer = ChatAnswer(HEADER, provider_type="openai", clock=StillClock(1000.0))
    try:
        document = json.loads(answer.whole(data, attempt, INPUT_ESTIMATE))
    except AttemptFailed as failed:
        return failed.error.code
    return document, attempt.usage, attempt.characters, attempt.finish_reason


def ordinary(document: dict[str, Any]) -> bytes:
    """White space before the colon keeps the short way from finding the choices."""
    return json.dumps(document, separators=(",", " :")).encode()


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("document", FITTING)
def test_a_plain_answer_is_told_as_the_ordinary_way_tells_it(
    document: dict[str, Any], ascii_only: bool
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert rewrite(data, OURS) is not None
    assert told(data) == told(ordinary(document))


@pytest.mark.parametrize("document", OTHERS)
def test_what_is_not_plain_is_left_to_the_ordinary_way(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    assert rewrite(data, OURS) is None
    assert told(data) == told(ordinary(document))


def test_tokens_are_counted_by_kind() -> None:
    _, usage, characters, reason = told(json.dumps(PLAIN).encode())
    assert usage == Usage(
        input_tokens=9,
        output_tokens=8,
        cached_input_tokens=7,
        reasoning_tokens=5,
        audio_input_tokens=6,
        audio_output_tokens=4,
    )
    assert (characters, reason) == (2, "stop")


@pytest.mark.parametrize(
    "end",
    [b"", b"}}", b'"', b',"id":"theirs"}', b',"model":"x"}', b',"x":"\xff"}', b',"x":"\x01"}'],
)
def test_broken_or_doubled_ends_are_not_passed_on(end: bytes) -> None:
    data = json.dumps(PLAIN).encode()[:-1] + end
    assert rewrite(data, OURS) is None
