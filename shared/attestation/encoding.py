"""Encodings of untrusted text: hex, base64 and JSON, each read strictly or not at all."""

import base64
import binascii
import re
from typing import Any

import msgspec

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")


def from_hex(text: object, size: int | None = None) -> bytes | None:
    """Bytes of hex digits, with `0x` before them or not; None: it is not that, or of another size."""
    if not isinstance(text, str):
        return None
    digits = text.removeprefix("0x")
    if not _HEX.fullmatch(digits):
        return None
    found = bytes.fromhex(digits)
    return None if size is not None and len(found) != size else found


def from_base64(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def from_json(text: str) -> Any:
    """What a JSON text says; None where it is none, or nests too deeply."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def member(document: object, name: str) -> Any:
    """Of an object; None where it has none of this name, or is no object."""
    return document.get(name) if isinstance(document, dict) else None


def text_member(document: object, name: str) -> str:
    """As `member`, and empty where it is no text."""
    found = member(document, name)
    return found if isinstance(found, str) else ""
