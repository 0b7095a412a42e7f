"""A provider's answer as the caller gets it: ids and names ours, all else as it came."""

import json
from typing import Any
from uuid import UUID

import pytest

from shared.clock import StillClock
from shared.job import JobHeader
from shared.price import Price
from shared.run import unpack
from shared.usage import Usage
from tests.unit.workers.jobs import INPUT_ESTIMATE, a_header, an_attempt
from workers.inference.attempt import Attempt
from workers.inference.chat import DONE, ChatAnswer, Earlier
from workers.inference.message import decode, estimate_input_tokens
from workers.inference.upstream_errors import AttemptFailed

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "completion_tokens_details": {"reasoning_tokens": 2},
    "cost": 0.125,
}


class Case:
    """One job's answer, and its attempt."""

    def __init__(self, *, earlier: Earlier | None = None, **header: Any) -> None:
        self.header: JobHeader = a_header(asked_model="as/asked", **header)
        self.answer = ChatAnswer(
            self.header, provider_type="openai", clock=StillClock(1000.0), earlier=earlier
        )
        self.attempt: Attempt = an_attempt(self.header, price=Price())

    def whole(self, document: object) -> Any:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        return json.loads(self.answer.whole(data, self.attempt, INPUT_ESTIMATE))

    def chunk(self, document: object) -> Any:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        out = unpack(b"".join(self.answer.chunks([data], self.attempt)))
        return json.loads(out.removeprefix(b"data: ")) if out else None

    def ending(self) -> bytes:
        return self.answer.ending(self.attempt, INPUT_ESTIMATE)


def a_completion(**members: object) -> dict[str, object]:
    message = {"role": "assistant", "content": "hi", "annotations": [1], "reasoning_content": "hm"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": []}}
    completion = {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 17,
        "model": "up/stream",
        "choices": [choice],
        "usage": USAGE,
    }
    return {**completion, **members}


def a_chunk(content: str | None = "hi", **members: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return {"id": "gen-1", "object": "x", "model": "up", "choices": [choice], **members}


def test_a_whole_answer_is_ours_by_name_and_theirs_by_content() -> None:
    case = Case()
    answer = case.whole(a_completion(generationId="kept", id="theirs"))
    assert answer["id"] == f"chatcmpl-{case.header.request_id}"
    assert answer["model"] == "as/asked"
    assert answer["object"] == "chat.completion"
    assert answer["created"] == 17
    assert UUID(answer["episode_id"]).hex == case.header.episode_id
    assert answer["choices"] == a_completion()["choices"]
    assert answer["usage"] == USAGE
    assert answer["generationId"] == "kept"
    assert (answer["system_fingerprint"], answer["service_tier"]) == ("", "default")
    assert case.attempt.finish_reason == "stop"
    assert case.attempt.usage == Usage(input_tokens=3, output_tokens=4, reasoning_tokens=2)


def test_what_the_provider_leaves_out_is_filled_in() -> None:
    document = a_completion(system_fingerprint="fp", service_tier="flex")
    del document["created"], document["usage"]
    case = Case()
    answer = case.whole(document)
    assert (answer["created"], answer["system_fingerprint"]) == (1000, "fp")
    assert answer["service_tier"] == "flex"
    usage = answer["usage"]
    assert usage["prompt_tokens"] == INPUT_ESTIMATE
    assert usage["completion_tokens"] == case.attempt.output_seen > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"null",
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        a_completion(error={"message": "died"}),
    ],
    ids=lambda data: str(data)[:20],
)
def test_a_200_that_is_no_completion_is_a_protocol_error(data: object) -> None:
    with pytest.raises(AttemptFailed) as caught:
        Case().whole(data)
    assert caught.value.error.code == "upstream_protocol_error"
    assert caught.value.error.status == 502


def test_a_null_error_beside_choices_is_no_error() -> None:
    assert Case().whole(a_completion(error=None))["choices"]


def test_raw_usage_and_response_are_added_only_when_asked_for() -> None:
    assert not {"ollm_raw_usage", "ollm_raw_response"} & Case().whole(a_completion()).keys()
    case = Case(include_raw_usage=True, include_raw_response=True)
    answer = case.whole(a_completion())
    entry = {
        "model_inference_id": str(UUID(case.attempt.row_id)),
        "provider_type": "openai",
        "api_type": "chat_completions",
    }
    assert answer["ollm_raw_usage"] == [{**entry, "data": USAGE}]
    (raw,) = answer["ollm_raw_response"]
    assert json.loads(raw.pop("data")) == a_completion()
    assert raw == entry


def test_chunks_of_a_stream_share_id_model_and_episode() -> None:
    case = Case(stream=True)
    chunks = [case.chunk(a_chunk(text)) for text in ("a", "b")]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["a", "b"]
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{case.header.request_id}"}
    assert {(c["model"], c["object"]) for c in chunks} == {("as/asked", "chat.completion.chunk")}
    assert {UUID(c["episode_id"]).hex for c in chunks} == {case.header.episode_id}
    assert case.attempt.deltas == 2


def test_the_usage_chunk_is_kept_from_a_client_that_did_not_ask() -> None:
    case = Case(stream=True)
    assert case.chunk(a_chunk(choices=[], usage=USAGE)) is None
    assert case.attempt.usage is not None
    assert case.ending() == DONE


def test_a_client_that_asked_gets_one_usage_chunk() -> None:
    case = Case(stream=True, include_usage=True)
    assert case.chunk(a_chunk(choices=[], usage=USAGE))["usage"] == USAGE
    assert case.ending() == DONE


@pytest.mark.parametrize("usage", [USAGE, None], ids=["with its last chunk", "never"])
def test_usage_that_did_not_come_in_a_chunk_of_its_own_is_given_one(usage: object) -> None:
    case = Case(stream=True, include_usage=True)
    case.chunk(a_chunk("hi", usage=usage))
    event, done = case.ending().split(b"\n\n", 1)
    chunk = json.loads(event.removeprefix(b"data: "))
    assert done == DONE
    assert chunk["choices"] == []
    expected = (3, 4, 7) if usage else (INPUT_ESTIMATE, 1, INPUT_ESTIMATE + 1)
    assert tuple(chunk["usage"].values()) == expected


def test_a_stream_without_choices_or_with_an_error_is_a_protocol_error() -> None:
    for event in (b"{}", b"[]", b"nonsense", b'{"error":{"message":"died"}}', b'{"choices":null}'):
        with pytest.raises(AttemptFailed) as caught:
            Case(stream=True).chunk(event)
        assert caught.value.error.code == "upstream_protocol_error"


def test_raw_chunks_and_raw_usage_ride_along() -> None:
    case = Case(stream=True, include_usage=True, include_raw_usage=True, include_raw_response=True)
    for text in ("a", "b"):
        chunk = case.chunk(a_chunk(text))
        assert json.loads(chunk["ollm_raw_chunk"]) == a_chunk(text)
        assert "ollm_raw_usage" not in chunk
    last = case.chunk(a_chunk(choices=[], usage=USAGE))
    assert last["ollm_raw_usage"][0]["data"] == USAGE


def test_everything_a_delta_says_is_counted() -> None:
    case = Case(stream=True)
    call = {"index": 0, "function": {"name": "name", "arguments": "args"}}
    for delta in ({"reasoning": "12"}, {"refusal": "34"}, {"tool_calls": [call]}, {"role": "x"}):
        case.chunk(a_chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]))
    assert (case.attempt.deltas, case.attempt.characters) == (3, 12)


def test_a_message_in_parts_is_estimated_by_its_text() -> None:
    parts = [{"type": "text", "text": "12345"}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages = [{"role": "user", "content": parts}, {"role": "system", "content": "1234"}]
    assert estimate_input_tokens({"messages": messages}) == 3
    assert estimate_input_tokens({}) == 0


def test_nothing_a_provider_sends_is_more_than_a_failed_attempt() -> None:
    for data in (b"\xff", b"{", b"[" * 100_000, b'"\\ud800'):
        with pytest.raises(AttemptFailed):
            decode(data)


EARLIER = Earlier(usage=Usage(10, 20), raw_usage=["u"], raw_response=["r"])
SUM = {
    "prompt_tokens": 13,
    "completion_tokens": 24,
    "total_tokens": 37,
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
}


def test_what_earlier_calls_used_and_said_is_added_to_a_whole_answer() -> None:
    case = Case(earlier=EARLIER, include_raw_usage=True, include_raw_response=True)
    answer = case.whole(a_completion())
    assert answer["usage"] == SUM
    assert [raw if raw == "u" else raw["data"] for raw in answer["ollm_raw_usage"]] == ["u", USAGE]
    assert answer["ollm_raw_response"][0] == "r"
    assert len(answer["ollm_raw_response"]) == 2
    assert case.attempt.usage == Usage(3, 4, reasoning_tokens=2), "its own row has its own"


@pytest.mark.parametrize("usage", [USAGE, None], ids=["in a chunk of its own", "never"])
def test_what_earlier_calls_used_is_added_to_the_usage_of_a_stream(usage: object) -> None:
    case = Case(earlier=EARLIER, stream=True, include_usage=True)
    case.chunk(a_chunk("hi"))
    if usage is not None:
        assert case.chunk({**a_chunk(), "choices": [], "usage": usage})["usage"] == SUM
        assert case.ending() == DONE
    else:
        chunk = json.loads(case.ending().split(b"\n\n")[0].removeprefix(b"data: "))
        assert chunk["usage"]["total_tokens"] == 30 + INPUT_ESTIMATE + 1


def test_what_earlier_calls_said_comes_once_in_a_stream() -> None:
    case = Case(earlier=EARLIER, stream=True, include_raw_response=True)
    chunks = [case.chunk(a_chunk(text)) for text in ("a", "b")]
    assert [chunk.get("ollm_raw_response") for chunk in chunks] == [["r"], None]
    assert all("ollm_raw_chunk" in chunk for chunk in chunks)
