"""Reads the ledger: one entry per request, newest first, a page at a time.

Attempts of a request have its time of admission in common, so they stand in one hour. A page is
read in two steps: which requests, from a window of hours that grows until the page is full, then
their attempts. The hour leads the table's order, so a window reads its own hours and no more.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, Self
from uuid import UUID

import msgspec
from typing_extensions import override

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.spend import TABLE
from shared.clickhouse.usage_filter import (
    EPOCH,
    HOUR,
    MICROSECOND,
    UsageFilter,
    hour_of,
    microseconds,
)
from shared.clickhouse.usage_lines import BETWEEN
from shared.money import ZERO

MAX_WINDOW = 256 * HOUR
"""Windows double while pages stay short; about eleven days bound what one query reads."""

MAX_SKIP_WINDOW = 16 * HOUR
"""To leave requests out they must be told apart, and so held: some hundred MB at worst."""
LEAST_ASKED = 100
"""Where some requests turn out not to fit, the last ones of a page are not asked for singly."""

CURSOR = re.compile(r"[0-9a-f]{1,13}-[0-9a-f]{32}")
"""Microseconds and a request, both in hex."""

_BEFORE = (
    "(created_at, request_id)"
    " < (fromUnixTimestamp64Micro({after_at:Int64}, 'UTC'), {after_id:UUID})"
)


class Cursor(NamedTuple):
    """The last entry of a page: the next one begins below it."""

    created_at: datetime
    request_id: UUID

    @override
    def __str__(self) -> str:
        return f"{microseconds(self.created_at):x}-{self.request_id.hex}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        if not CURSOR.fullmatch(text):
            raise ValueError("not a cursor")
        moment, _, request_id = text.partition("-")
        return cls(EPOCH + int(moment, 16) * MICROSECOND, UUID(request_id))


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader of usage is told of one spend row."""

    row_id: UUID
    request_id: UUID
    created_at: datetime
    started_at: datetime
    attempt: int
    tenant: str
    user: str
    key_id: str
    endpoint: str
    model: str
    provider: str
    tier: str
    status: str
    error_code: str
    billed: bool
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    is_priced: bool

    @property
    def rank(self) -> tuple[bool, int, datetime]:
        """Of a request's attempts the highest counts: the one that answered, else the last."""
        return (self.billed or self.status == "completed", self.attempt, self.started_at)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request: its attempt that counts, and what all of them cost."""

    attempt: Attempt
    cost_usd: Decimal

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.attempt.created_at, self.attempt.request_id)


class Page(NamedTuple):
    entries: list[Entry]
    next: Cursor | None
    """None: there is nothing below."""


_EXPRESSIONS = {"is_priced": "(price_input + price_output > 0 OR price_details != '')"}
_COLUMNS = ", ".join(
    f"{_EXPRESSIONS[name]} AS {name}" if name in _EXPRESSIONS else name
    for name in Attempt.__struct_fields__
)


class UsageTable:
    """Every method raises ClickHouseAway, and ContentRefused for a filter that means nothing."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    async def page(
        self, wanted: UsageFilter, *, limit: int, after: Cursor | None = None, skip: int = 0
    ) -> Page:
        """Rows that come meanwhile never repeat or hide an entry below `after`.

        `skip` counts requests that the filter may mean: see `UsageFilter.looks_at_attempts`.
        """
        found: list[Entry] = []
        while True:
            asked = limit - len(found)
            if wanted.looks_at_attempts:
                asked = max(asked, LEAST_ASKED)
            cursors = await self._requests(wanted, limit=asked, after=after, skip=skip)
            if cursors:
                found += await self._entries(wanted, cursors)
            if len(found) >= limit:
                return Page(found[:limit], found[limit - 1].cursor)
            if len(cursors) < asked:
                return Page(found, None)
            after, skip = cursors[-1], 0

    async def _requests(
        self, wanted: UsageFilter, *, limit: int, after: Cursor | None, skip: int
    ) -> list[Cursor]:
        """Those with an attempt that fits, newest first; a repeated row is one row of its request."""
        found: list[Cursor] = []
        low, high = await self._span(wanted)
        if after is not None:
            high = min(high, after.created_at + MICROSECOND)
        for window in windows(low, high, widest=MAX_SKIP_WINDOW if skip else MAX_WINDOW):
            where, parameters = _conditions(wanted, window, after)
            if skip:
                count = await self._count(where, parameters)
                if count <= skip:
                    skip -= count
                    continue
            rows = await self._store.query(
                f"SELECT DISTINCT created_at, request_id FROM {TABLE} WHERE {where}"  # noqa: S608
                " ORDER BY created_at DESC, request_id DESC"
                f" LIMIT {limit - len(found):d} OFFSET {skip:d}",
                parameters,
            )
            found += [Cursor(*row) for row in rows]
            skip = 0
            if len(found) >= limit:
                break
        return found

    async def _span(self, wanted: UsageFilter) -> tuple[datetime, datetime]:
        """The asked time, cut to where there are rows: answered from the parts' own bounds."""
        ((first, last, count),) = await self._store.query(
            f"SELECT min(created_at), max(created_at), count() FROM {TABLE}"  # noqa: S608
        )
        if not count:
            return wanted.since, wanted.since
        return max(wanted.since, first), min(wanted.until, last + MICROSECOND)

    async def _count(self, where: str, parameters: dict[str, object]) -> int:
        rows = await self._store.query(
            f"SELECT uniqExact(request_id) FROM {TABLE} WHERE {where}",  # noqa: S608
            parameters,
        )
        return int(rows[0][0])

    async def _entries(self, wanted: UsageFilter, cursors: Sequence[Cursor]) -> list[Entry]:
        """Of those requests whose attempt that counts fits, in the order of the cursors."""
        fits = " AND ".join(wanted.of_an_attempt) or "true"
        hours = sorted({microseconds(hour_of(cursor.created_at)) for cursor in cursors})
        parameters = wanted.parameters | {
            "ids": [str(cursor.request_id) for cursor in cursors],
            "hours": [hour // 1_000_000 for hour in hours],
            "low": microseconds(cursors[-1].created_at),
            "high": microseconds(cursors[0].created_at) + 1,
        }
        rows = await self._store.query(
            f"SELECT {_COLUMNS}, ({fits}) AS fits FROM {TABLE} WHERE {BETWEEN}"  # noqa: S608
            " AND toUnixTimestamp(toStartOfHour(created_at)) IN {hours:Array(UInt32)}"
            " AND request_id IN {ids:Array(UUID)}",
            parameters,
        )
        attempts: dict[UUID, dict[UUID, tuple[Attempt, bool]]] = defaultdict(dict)
        for *values, fit in rows:
            attempt = Attempt(**dict(zip(Attempt.__struct_fields__, values, strict=True)))
            attempts[attempt.request_id][attempt.row_id] = attempt, fit
        folded = (fold(attempts[cursor.request_id].values()) for cursor in cursors)
        return [entry for entry, fit in folded if fit]


def fold(attempts: Collection[tuple[Attempt, bool]]) -> tuple[Entry, bool]:
    """The entry of one request, and whether it fits."""
    counting, fit = max(attempts, key=lambda one: one[0].rank)
    return Entry(counting, sum((one.cost_usd for one, _ in attempts), ZERO)), fit


def windows(
    low: datetime, high: datetime, *, widest: timedelta = MAX_WINDOW
) -> Iterator[tuple[datetime, datetime]]:
    """Cuts a time into windows, newest first: the first is within an hour, each next twice as wide."""
    width: timedelta = HOUR
    while low < high:
        start = max(low, hour_of(high - MICROSECOND) - (width - HOUR))
        yield start, high
        high, width = start, min(width * 2, widest)


def _conditions(
    wanted: UsageFilter, window: tuple[datetime, datetime], after: Cursor | None
) -> tuple[str, dict[str, object]]:
    low, high = map(microseconds, window)
    conditions = [BETWEEN, *wanted.of_a_request, *wanted.of_an_attempt]
    parameters = wanted.parameters | {"low": low, "high": high}
    if after is not None:
        conditions.append(_BEFORE)
        parameters |= {
            "after_at": microseconds(after.created_at),
            "after_id": str(after.request_id),
        }
    return " AND ".join(conditions), parameters
