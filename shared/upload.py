"""An upload: a file on its way through the queue, in sealed chunks that follow its job.

The chunks are numbered from 1 without gaps, and the last entry is an end, which carries the form's
fields that came after the file. A chunk opens only as what it is, in its place: an upload that was
cut, or whose chunks were moved, never looks complete.
"""

import msgspec

CHUNK_BYTES = 256 << 10
"""Of the file, in the clear: large enough that a chunk's own cost does not count, small enough that
a few of them are little memory."""


class Form(msgspec.Struct, frozen=True):
    """The body of an upload's job: what the form held beside the file's own bytes."""

    fields: tuple[tuple[str, str], ...]
    """In the order they came, `model` and the gateway's own left out."""
    file_name: str
    content_type: str


class End(msgspec.Struct, frozen=True):
    """What came after the file."""

    fields: tuple[tuple[str, str], ...] = ()


def binding(request_id: str, number: int, *, is_end: bool) -> bytes:
    """What a chunk is sealed for."""
    return b"upload:%b:%d:%d" % (request_id.encode(), number, is_end)


encode_form = msgspec.msgpack.Encoder().encode
decode_form = msgspec.msgpack.Decoder(Form).decode
encode_end = msgspec.msgpack.Encoder().encode
decode_end = msgspec.msgpack.Decoder(End).decode
