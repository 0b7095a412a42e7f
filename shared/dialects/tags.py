"""Reads `ollm::tags`: labels a client puts on its requests, kept in their spend rows."""

from typing import Any

from shared.dialects.faults import bad

MAX_TAGS = 32
MAX_TAG_BYTES = 256
"""Of a key, and of a value."""
USER_AGENT_TAG = "application"
PLAYGROUND = "playground"
END_USER_TAG = "end_user"


def read_tags(path: str, given: Any) -> dict[str, str]:
    """A flat map of strings, or a list of `"k=v"`. Raises InvalidRequest."""
    pairs = _pairs_of_list(path, given) if type(given) is list else _pairs_of_map(path, given)
    if len(pairs) > MAX_TAGS:
        raise bad(path, f"may hold at most {MAX_TAGS} tags", "too_long")
    tags: dict[str, str] = {}
    for where, key, value in pairs:
        _check_size(where, key, value)
        tags[key] = value
    if tags.get("source") == PLAYGROUND:
        del tags["source"]
        tags[USER_AGENT_TAG] = PLAYGROUND
    return tags


def cut(value: str) -> str:
    """As much of a value of ours as a tag holds."""
    return value[:MAX_TAG_BYTES].encode()[:MAX_TAG_BYTES].decode(errors="ignore")


def _pairs_of_map(path: str, given: Any) -> list[tuple[str, str, str]]:
    if type(given) is not dict:
        raise bad(path, "must be an object or an array of 'key=value' strings", "dict_type")
    for key, value in given.items():
        if type(value) is not str:
            raise bad(f"{path}.{_shown(key)}", "must be a string", "string_type")
    return [(f"{path}.{_shown(key)}", key, value) for key, value in given.items()]


def _pairs_of_list(path: str, given: list[Any]) -> list[tuple[str, str, str]]:
    pairs = []
    for at, item in enumerate(given):
        key, separator, value = item.partition("=") if type(item) is str else ("", "", "")
        if not separator:
            raise bad(f"{path}.{at}", "must be a 'key=value' string", "value_error")
        pairs.append((f"{path}.{at}", key, value))
    return pairs


def _check_size(where: str, key: str, value: str) -> None:
    if not key:
        raise bad(where, "must have a name", "string_too_short")
    if max(len(key.encode()), len(value.encode())) > MAX_TAG_BYTES:
        raise bad(where, f"may be at most {MAX_TAG_BYTES} bytes long", "string_too_long")


def _shown(key: str) -> str:
    """A tag's key in an error: short, whatever was sent."""
    return key if len(key) <= MAX_TAGS else key[:MAX_TAGS] + "…"
