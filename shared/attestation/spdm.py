"""SPDM measurements: what a GPU signed, request and response, as one run of bytes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

REQUEST_SIZE = 37
"""Code and version, two parameters, a nonce of 32 bytes, a slot."""
SIGNATURE_SIZE = 96
"""Raw r and s on P-384."""
_GET_MEASUREMENTS = b"\x11\xe0"
_MEASUREMENTS = b"\x11\x60"
_RESPONSE_HEAD_SIZE = 8
_RESPONDER_NONCE_SIZE = 32


@dataclass(frozen=True, slots=True)
class Measurements:
    nonce: bytes
    """The requester's, which is what makes them fresh."""
    signed: bytes
    signature: bytes
    opaque: tuple[tuple[int, bytes], ...]
    """NVIDIA's own fields, by type."""

    def field(self, wanted: int) -> list[bytes]:
        return [value for kind, value in self.opaque if kind == wanted]


def read_measurements(evidence: bytes) -> Measurements | None:
    """None unless every length in it says just what is there."""
    request, response = evidence[:REQUEST_SIZE], evidence[REQUEST_SIZE:]
    if not request.startswith(_GET_MEASUREMENTS) or not response.startswith(_MEASUREMENTS):
        return None
    if len(response) < _RESPONSE_HEAD_SIZE:
        return None
    record = int.from_bytes(response[5:8], "little")
    at = _RESPONSE_HEAD_SIZE + record + _RESPONDER_NONCE_SIZE
    if len(response) < at + 2:
        return None
    (length,) = struct.unpack_from("<H", response, at)
    if len(response) != at + 2 + length + SIGNATURE_SIZE:
        return None
    try:
        opaque = tuple(_fields(response[at + 2 : at + 2 + length]))
    except struct.error:
        return None
    return Measurements(
        request[4:36], evidence[:-SIGNATURE_SIZE], evidence[-SIGNATURE_SIZE:], opaque
    )


def _fields(opaque: bytes) -> Iterator[tuple[int, bytes]]:
    """Raises struct.error where one is cut."""
    at = 0
    while at < len(opaque):
        kind, length = struct.unpack_from("<HH", opaque, at)
        yield kind, struct.unpack_from(f"{length}s", opaque, at + 4)[0]
        at += 4 + length
