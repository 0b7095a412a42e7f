"""Unit: a body is decoded to its last frame, or refused."""

import gzip
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard

from shared.embedded.clickhouse_front import codec
from shared.embedded.clickhouse_front.codec import decode
from shared.embedded.clickhouse_front.refusal import (
    CANNOT_DECOMPRESS,
    NOT_IMPLEMENTED,
    TOO_LARGE_BODY,
    Refusal,
)

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
BLOCKS = [bytes([n]) * 70_000 for n in range(3)]

every_encoding = pytest.mark.parametrize("encoding", COMPRESSORS)


@every_encoding
def test_every_frame_is_decoded(encoding: str) -> None:
    body = b"".join(COMPRESSORS[encoding](block) for block in BLOCKS)
    assert decode(body, encoding) == b"".join(BLOCKS)


@every_encoding
def test_a_body_that_ends_inside_its_last_frame_is_refused(encoding: str) -> None:
    whole = COMPRESSORS[encoding](BLOCKS[0])
    last = COMPRESSORS[encoding](BLOCKS[1])
    for missing in (1, len(last) // 2, len(last) - 1):
        with pytest.raises(Refusal) as refused:
            decode(whole + last[:-missing], encoding)
        assert refused.value.code == CANNOT_DECOMPRESS


@every_encoding
def test_what_is_no_frame_is_refused(encoding: str) -> None:
    with pytest.raises(Refusal) as refused:
        decode(COMPRESSORS[encoding](BLOCKS[0]) + b"and then something else", encoding)
    assert refused.value.code == CANNOT_DECOMPRESS


def test_a_damaged_checksum_is_refused() -> None:
    body = bytearray(gzip.compress(BLOCKS[0]))
    body[-8] ^= 1  # the CRC comes before the length, at the end
    with pytest.raises(Refusal) as refused:
        decode(bytes(body), "gzip")
    assert refused.value.code == CANNOT_DECOMPRESS


def test_a_body_without_encoding_stays_as_it_is() -> None:
    assert decode(b"SELECT 1", "") == b"SELECT 1"
    assert decode(b"SELECT 1", "identity") == b"SELECT 1"


def test_an_empty_body_is_empty_in_every_encoding() -> None:
    assert [decode(b"", encoding) for encoding in COMPRESSORS] == [b"", b"", b""]


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        decode(zlib.compress(b"x"), "deflate")
    assert (refused.value.code, refused.value.status) == (NOT_IMPLEMENTED, 501)


@every_encoding
def test_a_body_too_large_in_the_clear_is_refused(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "DECODED_BYTES_LIMIT", 100_000)
    body = b"".join(COMPRESSORS[encoding](block) for block in BLOCKS)
    with pytest.raises(Refusal) as refused:
        decode(body, encoding)
    assert refused.value.code == TOO_LARGE_BODY
