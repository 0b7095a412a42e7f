"""A whole chat completion as the stream it would have been."""

from collections.abc import Iterator
from typing import Any

import msgspec

from workers.inference.chat import DONE
from workers.inference.comparison import message_of

CHARACTERS_PER_CHUNK = 16 << 10
"""A long answer is more than one reply, and a client may be slow."""
ON_THE_FIRST = "ollm_raw_response"
ON_THE_LAST = "ollm_raw_usage"
NOT_REPEATED = {"choices", "usage", ON_THE_FIRST, ON_THE_LAST}

_encode = msgspec.json.Encoder().encode


def stream_of(answer: dict[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """Its events: the role, the text, the tool calls, the end, the usage if asked, `[DONE]`."""
    head = {name: value for name, value in answer.items() if name not in NOT_REPEATED}
    head["object"] = "chat.completion.chunk"
    first = {ON_THE_FIRST: answer[ON_THE_FIRST]} if ON_THE_FIRST in answer else {}
    for delta in _deltas(message_of(answer)):
        yield _event({**head, "choices": [_choice(delta)], **first})
        first = {}
    whole = answer["choices"][0]
    whole = whole if isinstance(whole, dict) else {}
    ending = _choice({}, whole.get("finish_reason") or "stop")
    if whole.get("logprobs") is not None:
        ending["logprobs"] = whole["logprobs"]
    yield _event({**head, "choices": [ending]})
    if include_usage:
        raw = {ON_THE_LAST: answer[ON_THE_LAST]} if ON_THE_LAST in answer else {}
        yield _event({**head, "choices": [], "usage": answer["usage"], **raw})
    yield DONE


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The first has the role, and what is neither text nor a call of a tool."""
    content, calls = message.get("content"), message.get("tool_calls")
    others = {
        name: value for name, value in message.items() if name not in ("content", "tool_calls")
    }
    text = content if isinstance(content, str) else ""
    yield {"role": "assistant", **others, "content": "" if text or not calls else None}
    for at in range(0, len(text), CHARACTERS_PER_CHUNK):
        yield {"content": text[at : at + CHARACTERS_PER_CHUNK]}
    if isinstance(calls, list) and calls:
        numbered = [
            {"index": at, **call} for at, call in enumerate(calls) if isinstance(call, dict)
        ]
        yield {"tool_calls": numbered}


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"
