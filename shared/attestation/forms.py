"""Forms: the several ways in which providers write one thing, read as one; what is unreadable is empty.

They mix hex with and without `0x` and base64, and objects and lists with texts that hold them, within
one document even.
"""

from collections.abc import Mapping

from shared.attestation.encoding import from_base64, from_hex, from_json

MAX_REPORT_CHARACTERS = 1024 * 1024
"""Three times a report of eight GPUs."""
MAX_SIGNATURE_CHARACTERS = 64 * 1024
"""Of a signature or an ACI receipt: thirty times the largest that was seen."""
MAX_CHARACTERS = 16 * 1024 * 1024
"""Of any other."""


def whole(given: str, most: int) -> Mapping[str, object]:
    """The object that a whole text holds; empty where it is longer than that."""
    return mapping(given) if len(given) <= most else {}


def mapping(value: object) -> Mapping[str, object]:
    """The object it is, or the one that its text holds."""
    found = _held(value)
    return found if isinstance(found, dict) else {}


def items(value: object) -> tuple[object, ...]:
    """Those of the list it is, or of the one that its text holds."""
    found = _held(value)
    return tuple(found) if isinstance(found, list) else ()


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def digits(value: object) -> str:
    """Lowercase hex of whole bytes, without `0x`."""
    return (from_hex(text(value).lower()) or b"").hex()


def octets(value: object) -> bytes:
    """Of hex or of base64."""
    found = from_hex(value)
    return (from_base64(value) or b"") if found is None else found


def _held(value: object) -> object:
    if not isinstance(value, str):
        return value
    return from_json(value) if len(value) <= MAX_CHARACTERS else None
