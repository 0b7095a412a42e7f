"""The table of spend rows: inserts batches, reads folded rows.

`spend_rows` holds what was inserted and folds repeats of a `row_id` in the background; `spend` is
the view readers use, always folded.
"""

from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from shared.clickhouse.client import ClickHouse, ContentRefused
from shared.clickhouse.native import (
    BOOL,
    FLOAT64,
    MICROSECONDS,
    TEXT,
    TEXT_MAP,
    UINT32,
    UINT64,
    UUID,
    WORD,
    Kind,
    block,
    decimals,
    nullable,
)
from shared.spend import SpendRow

TABLE = "spend_rows"
FOLDED = "spend"

PRICE = decimals(12, few=True)
COST = decimals(9)
SECONDS = decimals(3, few=True)


class Column(NamedTuple):
    """A column of the table, how it is written, and where a row keeps its value."""

    name: str
    kind: Kind
    field: str
    none_is_empty: bool = False


COLUMNS = (
    Column("row_id", UUID, "row_id"),
    Column("request_id", UUID, "request_id"),
    Column("tenant", WORD, "tenant"),
    Column("user", TEXT, "user"),
    Column("key_id", TEXT, "key_id", none_is_empty=True),
    Column("episode_id", TEXT, "episode_id", none_is_empty=True),
    Column("client_request_id", TEXT, "client_request_id", none_is_empty=True),
    Column("endpoint", WORD, "endpoint"),
    Column("model", WORD, "model"),
    Column("provider", WORD, "provider"),
    Column("variant", WORD, "variant"),
    Column("upstream_model", WORD, "upstream_model"),
    Column("tier", WORD, "tier"),
    Column("lane", WORD, "lane"),
    Column("config_hash", WORD, "config_hash"),
    Column("attempt", UINT32, "attempt"),
    Column("streamed", BOOL, "streamed"),
    Column("status", WORD, "status"),
    Column("error_code", WORD, "error_code", none_is_empty=True),
    Column("finish_reason", WORD, "finish_reason", none_is_empty=True),
    Column("billed", BOOL, "billed"),
    Column("input_tokens", UINT64, "usage.input_tokens"),
    Column("output_tokens", UINT64, "usage.output_tokens"),
    Column("cached_input_tokens", UINT64, "usage.cached_input_tokens"),
    Column("reasoning_tokens", UINT64, "usage.reasoning_tokens"),
    Column("audio_input_tokens", UINT64, "usage.audio_input_tokens"),
    Column("audio_output_tokens", UINT64, "usage.audio_output_tokens"),
    Column("cache_write_tokens", UINT64, "usage.cache_write_tokens"),
    Column("images", UINT64, "usage.images"),
    Column("image_kind", WORD, "usage.image_kind"),
    Column("seconds", SECONDS, "usage.seconds"),
    Column("pages", UINT64, "usage.pages"),
    Column("characters", UINT64, "usage.characters"),
    Column("tool_calls", UINT64, "usage.tool_calls"),
    Column("usage_source", WORD, "usage_source"),
    Column("price_input", PRICE, "price.input"),
    Column("price_output", PRICE, "price.output"),
    Column("price_cached_input", nullable(PRICE, Decimal(0)), "price.cached_input"),
    Column("price_details", TEXT, "price_details"),
    Column("cost_usd", COST, "cost_usd"),
    Column("tags", TEXT_MAP, "tags"),
    Column("created_at", MICROSECONDS, "created_at"),
    Column("started_at", MICROSECONDS, "started_at"),
    Column("ended_at", MICROSECONDS, "ended_at"),
    Column("ttft_ms", nullable(FLOAT64, 0.0), "ttft_ms"),
    Column("queue_ms", FLOAT64, "queue_ms"),
    Column("upstream_ms", FLOAT64, "upstream_ms"),
    Column("overhead_ms", FLOAT64, "overhead_ms"),
    Column("cached", BOOL, "cached"),
    Column("service_tier", WORD, "service_tier"),
)
NAMES = tuple(column.name for column in COLUMNS)

_SELECT = f"SELECT {', '.join(NAMES)} FROM {FOLDED}"  # noqa: S608  (names of our own)


class SpendTable:
    """Inserts and reads spend rows."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    async def insert(self, rows: Sequence[SpendRow], *, token: str) -> None:
        """Stores the rows. The same token for the same rows spares storing them twice.

        Raises ClickHouseAway (repeat it) or ContentRefused (a row among them cannot be stored;
        which one is not said).
        """
        if rows:
            await self._store.insert(TABLE, NAMES, block_of(rows), token=token)

    async def count(self) -> int:
        """How many rows there are, repeats counted once."""
        found = await self._store.query(f"SELECT count() FROM {FOLDED}")  # noqa: S608
        return int(found[0][0])

    async def rows(self, *, request_id: str) -> list[SpendRow]:
        """The attempts of one request, in the order they were made."""
        found = await self._store.query(
            f"{_SELECT} WHERE request_id = {{id:UUID}} ORDER BY attempt, started_at",
            {"id": request_id},
        )
        return [row_of(values) for values in found]


def block_of(rows: Sequence[SpendRow]) -> bytes:
    """The rows turned on their side, as ClickHouse takes them. Raises ContentRefused."""
    try:
        return block(
            ((column.name, column.kind, _values(rows, column)) for column in COLUMNS),
            rows=len(rows),
        )
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        # Our own words or an exception's kind: its text may repeat the value.
        raise ContentRefused(f"a value does not fit its column: {type(error).__name__}") from error


def _values(rows: Sequence[SpendRow], column: Column) -> list[Any]:
    values = list(map(attrgetter(column.field), rows))
    return [value or "" for value in values] if column.none_is_empty else values


def row_of(values: Sequence[Any]) -> SpendRow:
    """The row that a line of the table stands for."""
    document: dict[str, Any] = {}
    for column, value in zip(COLUMNS, values, strict=True):
        *path, field = column.field.split(".")
        member = document.setdefault(path[0], {}) if path else document
        member[field] = None if column.none_is_empty and not value else value
    if details := document.pop("price_details"):
        document["price"] = msgspec.json.decode(details)
    document["row_id"] = document["row_id"].hex
    document["request_id"] = document["request_id"].hex
    return msgspec.convert([document[name] for name in SpendRow.__struct_fields__], SpendRow)
