"""What others wrote, read without trust: JSON, hex and base64 in any mix; nothing here raises.

Providers write the same thing in several forms, within one document even. Whatever cannot be read
is empty.
"""

import base64
import re
from collections.abc import Mapping

import msgspec

MAX_CHARACTERS = 16 * 1024 * 1024
"""Of one document: ninety times the largest report that was seen."""

_HEX = re.compile(r"(?:[0-9a-f]{2})*")


def read_json(text: str) -> object:
    """What the text holds; None where it is no JSON, too long or too deep."""
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None


def mapping(value: object) -> Mapping[str, object]:
    """The object it is, or the one that its text holds."""
    found = read_json(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}


def items(value: object) -> tuple[object, ...]:
    """Those of the list it is, or of the one that its text holds."""
    found = read_json(value) if isinstance(value, str) else value
    return tuple(found) if isinstance(found, list) else ()


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def digits(value: object) -> str:
    """Lowercase hex of whole bytes, without `0x`."""
    found = text(value).strip().lower().removeprefix("0x")
    return found if _HEX.fullmatch(found) else ""


def octets(value: object) -> bytes:
    """Of hex or of base64."""
    if found := digits(value):
        return bytes.fromhex(found)
    packed = "".join(text(value).split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except ValueError:
        return b""
