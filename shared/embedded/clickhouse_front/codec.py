"""Decodes a request body as its Content-Encoding says, every frame of it.

clickhouse-connect compresses each block of rows by itself, and starts a new block after some 2 MB
(insert.py, DEFAULT_BLOCK_BYTES). A decoder that stops after the first frame would lose all further
rows and still answer 200, so each decoder here runs until nothing is left over, and refuses a body
that ends inside a frame.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

import lz4.frame
import zstandard

from shared.embedded.clickhouse_front.refusal import (
    CANNOT_DECOMPRESS,
    NOT_IMPLEMENTED,
    TOO_LARGE_BODY,
    Refusal,
)

GZIP_WINDOW_BITS = 31  # zlib's way to say: a gzip header, any window
DECODED_BYTES_LIMIT = 1 << 30  # our batches are some MB; a small body must not fill the memory

_DecodeError = (zlib.error, zstandard.ZstdError, RuntimeError, EOFError)  # lz4 raises RuntimeError


class _Frame(Protocol):
    """What the three libraries' decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes) -> bytes: ...


def _gzip_frame() -> _Frame:
    return zlib.decompressobj(GZIP_WINDOW_BITS)


def _zstd_frame() -> _Frame:
    return zstandard.ZstdDecompressor().decompressobj()


def _lz4_frame() -> _Frame:
    frame: _Frame = lz4.frame.LZ4FrameDecompressor()
    return frame


_FRAME_BY_ENCODING: dict[str, Callable[[], _Frame]] = {
    "gzip": _gzip_frame,
    "zstd": _zstd_frame,
    "lz4": _lz4_frame,
}


def decode(body: bytes, encoding: str) -> bytes:
    """The body in the clear; a `Refusal` if it is damaged, cut short or of an unknown kind."""
    if encoding in ("", "identity"):
        return body
    new_frame = _FRAME_BY_ENCODING.get(encoding)
    if new_frame is None:
        raise Refusal(
            NOT_IMPLEMENTED, f"Unknown compression method {encoding!r}. (NOT_IMPLEMENTED)"
        )
    return _decode_frames(body, new_frame, encoding)


def _decode_frames(body: bytes, new_frame: Callable[[], _Frame], encoding: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest:
        frame = new_frame()
        try:
            parts.append(frame.decompress(rest))
        except _DecodeError as error:
            raise _damaged(encoding, str(error)) from error
        if not frame.eof:
            raise _damaged(encoding, "the body ends inside a frame")
        size += len(parts[-1])
        if size > DECODED_BYTES_LIMIT:
            raise Refusal(
                TOO_LARGE_BODY, f"Body above {DECODED_BYTES_LIMIT} bytes. (TOO_MANY_BYTES)"
            )
        rest = frame.unused_data or b""
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _damaged(encoding: str, reason: str) -> Refusal:
    return Refusal(
        CANNOT_DECOMPRESS, f"Cannot decode {encoding} body: {reason}. (CANNOT_DECOMPRESS)"
    )
