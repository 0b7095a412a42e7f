"""ClickHouse's Native format, the writing half: columns of values become one block of bytes.

clickhouse-connect writes it too, at twice the cost for our rows: it parses each decimal's text, and
makes a UUID object of each id. Here a whole column is one call into C wherever that is possible. A
value that its column cannot hold raises ValueError, TypeError or OverflowError before any byte
leaves.

The format: https://clickhouse.com/docs/interfaces/formats/Native. A block is the number of columns
and of rows, then for each column its name, its type and its values; counts and text lengths are
LEB128, numbers little-endian. The server converts a column whose type differs from the table's, so
words go as plain text into LowCardinality columns.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, chain
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ONE_BYTE_LENGTHS = 128
"""Lengths below this are one LEB128 byte, which is also one ASCII character."""
UUID_HEX_DIGITS = 32


class Kind(NamedTuple):
    """A type as the server calls it, and how a column of it is written."""

    name: str
    write: Callable[[Sequence[Any]], bytes]


def block(columns: Iterable[tuple[str, Kind, Sequence[Any]]], *, rows: int) -> bytes:
    """One block; every column must have as many values as there are rows."""
    parts: list[bytes] = []
    for name, kind, values in columns:
        if len(values) != rows:
            raise ValueError(f"column {name} has {len(values)} values for {rows} rows")
        parts += (_text(name), _text(kind.name), kind.write(values))
    return _length(len(parts) // 3) + _length(rows) + b"".join(parts)


def _length(count: int) -> bytes:
    out = bytearray()
    while count >= ONE_BYTE_LENGTHS:
        out.append(count & 0x7F | 0x80)
        count >>= 7
    out.append(count)
    return bytes(out)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _length(len(raw)) + raw


def _texts(values: Sequence[str]) -> bytes:
    if max(map(len, values), default=0) < ONE_BYTE_LENGTHS:
        joined = "".join([chr(len(value)) + value for value in values])
        if joined.isascii():
            return joined.encode()
    return b"".join(map(_text, values))


def _words(values: Sequence[str]) -> bytes:
    written = {word: _text(word) for word in set(values)}
    if len(written) == 1:
        return written[values[0]] * len(values)
    return b"".join(map(written.__getitem__, values))


def _uuids(values: Sequence[str]) -> bytes:
    """From hex digits: two little-endian halves, the higher one first."""
    if set(map(len, values)) - {UUID_HEX_DIGITS}:
        raise ValueError("an id is not 32 hex digits")
    halves = array("Q", bytes.fromhex("".join(values)))
    halves.byteswap()
    return halves.tobytes()


def _times(values: Sequence[datetime]) -> bytes:
    return array("q", [(value - EPOCH) // MICROSECOND for value in values]).tobytes()


def _maps(values: Sequence[Mapping[str, str]]) -> bytes:
    """Where each map ends among all pairs, then all keys, then all values."""
    ends = array("Q", accumulate(map(len, values)))
    filled = [value for value in values if value]
    keys = list(chain.from_iterable(filled))
    texts = list(chain.from_iterable(value.values() for value in filled))
    return ends.tobytes() + _texts(keys) + _texts(texts)


def _numbers(code: str) -> Callable[[Sequence[float]], bytes]:
    return lambda values: array(code, values).tobytes()


TEXT = Kind("String", _texts)
WORD = Kind("String", _words)
"""Text of which a batch holds few different values."""
UUID = Kind("UUID", _uuids)
BOOL = Kind("Bool", bytes)
UINT32 = Kind("UInt32", _numbers("I"))
UINT64 = Kind("UInt64", _numbers("Q"))
FLOAT64 = Kind("Float64", _numbers("d"))
MICROSECONDS = Kind("DateTime64(6, 'UTC')", _times)
TEXT_MAP = Kind("Map(String, String)", _maps)


def decimals(scale: int, *, few: bool = False) -> Kind:
    """Amounts with at most `scale` digits after the point; another digit is an error, not lost.

    `few`: a batch holds few different ones, so each is converted once. They are told apart by their
    text, because hashing a fresh Decimal costs more than printing it.
    """

    def write(values: Sequence[Decimal]) -> bytes:
        if not few:
            return array("q", _whole(values, scale)).tobytes()
        texts = list(map(str, values))
        different = dict(zip(texts, values, strict=True))
        written = dict(zip(different, _whole(different.values(), scale), strict=True))
        return array("q", map(written.__getitem__, texts)).tobytes()

    return Kind(f"Decimal(18, {scale})", write)


def _whole(amounts: Iterable[Decimal], scale: int) -> list[int]:
    scaled = [amount.scaleb(scale) for amount in amounts]
    whole = list(map(int, scaled))
    if whole != scaled:
        raise ValueError(f"an amount has more than {scale} digits after the point")
    return whole


def nullable(kind: Kind, filler: object) -> Kind:
    """`filler` stands in the place of None; the server does not look at it."""

    def write(values: Sequence[Any]) -> bytes:
        missing = bytes([value is None for value in values])
        if any(missing):
            values = [filler if value is None else value for value in values]
        return missing + kind.write(values)

    return Kind(f"Nullable({kind.name})", write)
