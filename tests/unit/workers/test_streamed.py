"""A whole answer as the stream it would have been."""

import json
from typing import Any

from workers.inference.streamed import CHARACTERS_PER_CHUNK, stream_of

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def chunks(message: dict[str, Any], *, include_usage: bool = False, **members: Any) -> list[Any]:
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    answer = {
        "id": "x",
        "object": "chat.completion",
        "choices": [choice],
        "usage": USAGE,
        **members,
    }
    *events, done = stream_of(answer, include_usage=include_usage)
    assert done == b"data: [DONE]\n\n"
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def deltas(found: list[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in found if chunk["choices"]]


def test_a_text_has_its_role_its_pieces_and_its_end() -> None:
    text = "x" * CHARACTERS_PER_CHUNK + "y"
    found = chunks({"role": "assistant", "content": text})
    assert deltas(found) == [
        {"role": "assistant", "content": ""}, {"content": text[:-1]}, {"content": "y"}, {},
    ]  # fmt: skip
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "length"]
    assert {(chunk["id"], chunk["object"]) for chunk in found} == {("x", "chat.completion.chunk")}
    assert all("usage" not in chunk for chunk in found)


def test_calls_of_tools_are_numbered_and_other_members_come_with_the_role() -> None:
    calls = [{"id": "a"}, {"id": "b"}]
    message = {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "r"}
    assert deltas(chunks(message)) == [
        {"role": "assistant", "reasoning_content": "r", "content": None},
        {"tool_calls": [{"index": 0, "id": "a"}, {"index": 1, "id": "b"}]},
        {},
    ]


def test_usage_comes_last_if_asked_and_raw_answers_first_and_raw_usage_with_it() -> None:
    raw = {"ollm_raw_usage": [1], "ollm_raw_response": [2]}
    found = chunks({"content": "x"}, include_usage=True, **raw)
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], USAGE)
    assert [chunk.get("ollm_raw_response") for chunk in found] == [[2], None, None, None]
    assert [chunk.get("ollm_raw_usage") for chunk in found] == [None, None, None, [1]]


def test_a_choice_that_holds_nothing_still_makes_a_whole_stream() -> None:
    *events, done = stream_of({"choices": [None], "usage": USAGE}, include_usage=False)
    ends = [json.loads(event.removeprefix(b"data: "))["choices"][0] for event in events]
    assert [end["finish_reason"] for end in ends] == [None, "stop"]
    assert done == b"data: [DONE]\n\n"
