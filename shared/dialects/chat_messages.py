"""The check of a chat completion's `messages`: roles, contents and their parts.

What a provider alone can judge (which roles need content, which part types a model takes) is left
to it; here is refused what no provider could read.
"""

from typing import Any

from shared.dialects.faults import bad, missing
from shared.errors import InvalidRequest
from shared.prompt import ARGUMENTS

ROLES = frozenset({"developer", "system", "user", "assistant", "tool"})
ROLE_WORDS = "'developer', 'system', 'user', 'assistant', 'tool'"


def check_messages(messages: Any) -> bool:
    """Whether any part of them is arguments, for a template. Raises InvalidRequest."""
    if type(messages) is not list:
        raise bad("messages", "must be an array", "list_type")
    if not messages:
        raise bad("messages", "must hold at least one message", "too_short")
    has_arguments = False
    for at, message in enumerate(messages):
        if type(message) is not dict:
            raise bad(f"messages.{at}", "must be an object", "dict_type")
        role = message.get("role")
        # A role may be an unhashable thing: its type comes first.
        if type(role) is not str or role not in ROLES:
            raise _bad_role(at, role)
        content = message.get("content")
        if type(content) is not str and content is not None:
            has_arguments |= _check_parts(f"messages.{at}.content", content)
        if len(message) > 2:
            _check_rest(f"messages.{at}", message)
    return has_arguments


def _bad_role(at: int, role: Any) -> InvalidRequest:
    if role is None:
        return missing(f"messages.{at}.role")
    return bad(f"messages.{at}.role", f"must be one of {ROLE_WORDS}", "literal_error")


def _check_rest(path: str, message: dict[str, Any]) -> None:
    if ARGUMENTS in message:
        raise bad(f"{path}.{ARGUMENTS}", "must stand in a part of 'content'")
    for name in ("name", "tool_call_id"):
        value = message.get(name)
        if value is not None and type(value) is not str:
            raise bad(f"{path}.{name}", "must be a string", "string_type")
    calls = message.get("tool_calls")
    if calls is None:
        return
    if type(calls) is not list:
        raise bad(f"{path}.tool_calls", "must be an array", "list_type")
    for at, call in enumerate(calls):
        if type(call) is not dict:
            raise bad(f"{path}.tool_calls.{at}", "must be an object", "dict_type")


def _check_parts(path: str, parts: Any) -> bool:
    has_arguments = False
    if type(parts) is not list:
        raise bad(path, "must be a string or an array of parts", "string_type")
    for at, part in enumerate(parts):
        if type(part) is not dict:
            raise bad(f"{path}.{at}", "must be an object", "dict_type")
        kind = part.get("type")
        if kind is None:
            raise missing(f"{path}.{at}.type")
        if type(kind) is not str:
            raise bad(f"{path}.{at}.type", "must be a string", "string_type")
        if ARGUMENTS in part:
            _check_arguments(f"{path}.{at}", part)
            has_arguments = True
        elif kind == "text":
            _check_string(f"{path}.{at}.text", part.get("text"))
        elif kind == "image_url":
            _check_image(f"{path}.{at}.image_url", part.get("image_url"))
    return has_arguments


def _check_arguments(path: str, part: dict[str, Any]) -> None:
    if part["type"] != "text" or part.get("text") is not None:
        raise bad(f"{path}.{ARGUMENTS}", "must stand in a part of type 'text', instead of its text")
    if type(part[ARGUMENTS]) is not dict:
        raise bad(f"{path}.{ARGUMENTS}", "must be an object", "dict_type")


def _check_image(path: str, image: Any) -> None:
    if image is None:
        raise missing(path)
    if type(image) is not dict:
        raise bad(path, "must be an object", "dict_type")
    _check_string(f"{path}.url", image.get("url"))


def _check_string(path: str, value: Any) -> None:
    if value is None:
        raise missing(path)
    if type(value) is not str:
        raise bad(path, "must be a string", "string_type")
