"""What the dialects' checks share: the words for what is wrong with a body, and plain type checks.

A path names what is wrong, with dots: `messages.0.role`. No message repeats a value: it may be the
prompt. JSON's own types are compared exactly, since `True` would pass for an integer.
"""

from typing import Any, TypeGuard

from shared.errors import Fault, InvalidRequest

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
FLOAT_MAX = 1.7976931348623157e308
"""The largest double; JSON may hold larger integers."""
MAX_DEPTH = 100
"""Levels of objects and arrays. Everyone after us must decode the document again, perhaps deep in
its own stack; real documents, JSON schemas included, have under twenty."""

COUNTED_BYTES = 4096
"""Counting costs half a microsecond per kilobyte."""


def fault(path: str, message: str, kind: str) -> Fault:
    """The item of `detail` for a path into the body."""
    steps = tuple(int(step) if step.isdecimal() else step for step in path.split("."))
    return Fault(("body", *steps), message, kind)


def bad(path: str, message: str, kind: str = "value_error") -> InvalidRequest:
    """400 invalid_value. The message continues a sentence that begins with the path."""
    return InvalidRequest(f"'{path}' {message}.", param=path, faults=[fault(path, message, kind)])


def missing(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{path}' is required.",
        code="missing_required_parameter",
        param=path,
        faults=[fault(path, "Field required", "missing")],
    )


def unsupported(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{path}' {message}.",
        code="unsupported_value",
        param=path,
        faults=[fault(path, message, "value_error")],
    )


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def text(path: str, value: Any) -> None:
    if type(value) is not str:
        raise bad(path, "must be a string", "string_type")


def truth(path: str, value: Any) -> None:
    if type(value) is not bool:
        raise bad(path, "must be true or false", "bool_type")


def number(path: str, value: Any) -> None:
    kind = type(value)
    if kind is not float and kind is not int:
        raise bad(path, "must be a number", "float_type")
    if not -FLOAT_MAX <= value <= FLOAT_MAX:
        raise bad(path, "is out of range", "finite_number")


def integer(path: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int:
        raise bad(path, "must be an integer", "int_type")
    if value < low:
        raise bad(path, f"must be at least {low}", "greater_than_equal")
    if value > high:
        raise bad(path, f"must be at most {high}", "less_than_equal")


def check_depth(body: bytes, document: dict[str, Any]) -> None:
    """Raises InvalidRequest where the document is deeper than MAX_DEPTH.

    A body with fewer opening brackets cannot be; others are walked, level by level. Counting them
    reads every byte, so in large bodies, which are large because of their text, walking is cheaper.
    """
    if len(body) <= COUNTED_BYTES and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for holder in level
            for value in (holder.values() if type(holder) is dict else holder)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            return
    message = "The body is nested too deeply."
    raise InvalidRequest(message, faults=[Fault(("body",), message, "json_invalid")])
