"""Reads what a provider says, without trusting it to be of the right shape: messages, deltas, words."""

from typing import Any

import msgspec

from workers.inference.upstream_errors import protocol_error

MAX_TIER_CHARACTERS = 32
CHARACTERS_PER_INPUT_TOKEN = 4
"""The usual rule of thumb, for input whose tokens no provider counted."""

_decode = msgspec.json.Decoder().decode


def decode(data: bytes) -> Any:
    """Raises AttemptFailed: what a provider sends is not trusted to be JSON."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise protocol_error("The provider's answer is not valid JSON.") from error


def estimate_input_tokens(document: dict[str, Any]) -> int:
    """Tokens of a request's messages by their characters: a stand-in for a missing count."""
    messages = document.get("messages")
    if not isinstance(messages, list):
        return 0
    characters = sum(map(length_of, messages))
    return -(-characters // CHARACTERS_PER_INPUT_TOKEN)


def length_of(message: Any) -> int:
    """Characters of what a message or delta says: content, reasoning, refusal, tool arguments."""
    if not isinstance(message, dict):
        return 0
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2 and "role" in message:
        return len(content)  # the common case: a role and a text
    total = 0
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        value = message.get(name)
        if not value:
            continue
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list):
            total += sum(
                len(text_of(part.get("text")) or "") for part in value if isinstance(part, dict)
            )
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        total += sum(_call_length(call) for call in calls)
    return total


def tier_of(document: dict[str, Any]) -> str:
    """The service tier that an answer says it had; cut, since it is kept in a column of words."""
    return (text_of(document.get("service_tier")) or "")[:MAX_TIER_CHARACTERS]


def _call_length(call: Any) -> int:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return 0
    return sum(len(text_of(function.get(name)) or "") for name in ("name", "arguments"))


def text_of(value: Any) -> str | None:
    return value if isinstance(value, str) else None
