"""A reply: one numbered message about a job, from its worker to whoever waits for it.

A stream entry carries many replies as field/value pairs: the field is the request id (32 hex
digits), the value a frame. A frame is `kind (1 byte) · number (4 bytes, big endian) · claim count
(2 bytes) · sealed payload`. Numbers start at 1 and have no gaps; the last frame is a WHOLE,
END or FAILED. Repeats are dropped by number; a gap, or a second claim after the first reply, ends
a stream as failed: it must never look complete.
"""

import struct
from enum import IntEnum

import msgspec

from shared.errors import ErrorBody

FRAME_HEAD = struct.Struct(">BIH")


class Kind(IntEnum):
    WHOLE = 1
    """A whole answer: payload is an `Answer`."""
    DELTA = 2
    """Text of a stream, ready to be sent once its runs are unpacked (`shared.run`)."""
    END = 3
    """The stream's last bytes, `[DONE]` included; nothing follows."""
    FAILED = 4
    """Payload is an `ErrorBody`; nothing follows."""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole (non-streaming) answer: ready-made body bytes and what belongs in the headers."""

    body: bytes
    content_type: str = "application/json"
    upstream_ms: float = 0.0
    queue_ms: float = 0.0
    cost_usd: str | None = None
    headers: dict[str, str] = {}


def pack_frame(kind: int, number: int, claim: int, sealed: bytes) -> bytes:
    return FRAME_HEAD.pack(kind, number, claim & 0xFFFF) + sealed


def binding(request_id: str, kind: int, number: int, claim: int) -> bytes:
    """What a reply is sealed for: moved to another place, or made another kind, it does not open."""
    return b"reply:%b:%d:%d:%d" % (request_id.encode(), kind, number, claim & 0xFFFF)


def unpack_frame(data: bytes) -> tuple[int, int, int, bytes]:
    """(kind, number, claim, sealed payload). Raises struct.error on a short frame."""
    kind, number, claim = FRAME_HEAD.unpack_from(data)
    return kind, number, claim, data[FRAME_HEAD.size :]


encode_answer = msgspec.msgpack.Encoder().encode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
encode_error = msgspec.msgpack.Encoder().encode
decode_error = msgspec.msgpack.Decoder(ErrorBody).decode
