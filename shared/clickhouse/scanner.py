"""Reads the Scanner's requests: one entry per request, newest first, and one request whole.

A page is read in two steps: the ids of requests that fit, in the order of their table, then what is
shown of those. Attempts of a request have its time of admission in common.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, TypeVar
from uuid import UUID

import msgspec

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.scanner_filter import IdPrefix, ScannerFilter
from shared.clickhouse.spend import TABLE
from shared.clickhouse.usage import Cursor
from shared.clickhouse.usage_filter import EPOCH, MICROSECOND, hour_of, microseconds
from shared.clickhouse.usage_lines import BETWEEN
from shared.money import ZERO

REQUESTS = "scanner_requests"

LEAST_ASKED = 100
"""Where some attempts turn out to be outranked, the last ones of a page need not be asked for."""
TIMES_AT_ONCE = 2_000
"""A query's parameters are part of its address."""

_BEFORE = (
    "(created_at, request_id)"
    " < (fromUnixTimestamp64Micro({after_at:Int64}, 'UTC'), {after_id:UUID})"
)
_STOP_EARLY = " SETTINGS read_in_order_use_buffering = 0"
"""Reading ahead costs more than it gains: most pages end in the first granules."""
_AT_TIMES = (
    "created_at IN (SELECT fromUnixTimestamp64Micro(arrayJoin({times:Array(Int64)}), 'UTC'))"
)

S = TypeVar("S", bound=msgspec.Struct)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a list tells of a request: of the attempt that answered, else of the last."""

    request_id: UUID
    created_at: datetime
    row_rank: int
    is_final: bool
    model: str
    creator: str
    application: str
    status: str
    provider: str
    tier: str
    endpoint: str
    streamed: bool
    cached: bool
    is_priced: bool
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    """Of all attempts."""
    latency_ms: float
    ttft_ms: float | None

    @property
    def is_metered(self) -> bool:
        """It answered, or was billed."""
        return bool(self.row_rank >> 63)

    @property
    def attempt(self) -> int:
        """Its number: how many there were, until then."""
        return self.row_rank >> 51 & 0xFFF


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of one attempt of a request that was asked for by its id."""

    row_id: UUID
    attempt: int
    model: str
    provider: str
    row_status: str
    billed: bool
    started_at: datetime
    ended_at: datetime
    upstream_ms: float
    ttft_ms: float | None
    usage_source: str
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    cache_write_tokens: int
    images: int
    seconds: Decimal
    pages: int
    characters: int
    tool_calls: int
    cost_usd: Decimal

    @property
    def status(self) -> str:
        return "failed" if self.row_status == "lost" else self.row_status

    @property
    def is_metered(self) -> bool:
        """It answered, or was billed."""
        return self.billed or self.row_status == "completed"


class Whole(NamedTuple):
    """One request, and its attempts in their order."""

    shown: Shown
    attempts: list[Attempt]


class Page(NamedTuple):
    requests: list[Shown]
    next: Cursor | None
    """None: there is nothing below."""


class _Place(NamedTuple):
    """Of a request in the order of the list."""

    micros: int
    request_id: UUID

    @property
    def cursor(self) -> Cursor:
        return Cursor(EPOCH + self.micros * MICROSECOND, self.request_id)


class ScannerTable:
    """Every method raises ClickHouseAway, and ContentRefused for a filter that means nothing."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    async def page(
        self, wanted: ScannerFilter, *, limit: int, skip: int = 0, after: Cursor | None = None
    ) -> Page:
        """Of the requests that fit and are below `after`, those after the first `skip`."""
        needed = skip + limit + 1
        found: list[_Place] = []
        asked = max(LEAST_ASKED, needed)
        while len(found) < needed:
            lines = await self._lines(wanted, limit=asked, after=after)
            found += await self._fitting(wanted, lines)
            if len(lines) < asked:
                break
            after = _Place(*lines[-1][:2]).cursor
            asked *= 2  # many do not fit after all: retries that are not merged yet
        places = found[skip : skip + limit]
        more = places[-1].cursor if len(found) >= needed else None
        return Page(await self._shown(places), more)

    async def find(self, request_id: UUID) -> Whole | None:
        """One request, with all of its attempts."""
        around = IdPrefix.read(str(request_id))
        if around is None:
            return None
        where = f"{BETWEEN} AND request_id = {{id:UUID}}"
        parameters = {
            "id": str(request_id),
            "low": microseconds(around.since),
            "high": microseconds(around.until),
        }
        lines = await self._read(Shown, f"FROM {REQUESTS} WHERE {where}", parameters)
        rows = await self._read(Attempt, f"FROM {TABLE} WHERE {where}", parameters)
        if not lines or not rows:
            return None
        attempts = {row.row_id: row for row in rows}.values()  # a repeated row is one
        shown = msgspec.structs.replace(
            max(lines, key=lambda line: line.row_rank),
            cost_usd=sum((one.cost_usd for one in attempts), ZERO),
        )
        return Whole(shown, sorted(attempts, key=lambda one: (one.attempt, one.started_at)))

    async def _lines(
        self, wanted: ScannerFilter, *, limit: int, after: Cursor | None
    ) -> list[tuple[int, UUID, bool]]:
        """A request may have several: attempts that are not merged yet, repeats."""
        conditions, parameters = wanted.conditions, wanted.parameters
        if after is not None:
            conditions.append(_BEFORE)
            parameters |= {
                "after_at": microseconds(after.created_at),
                "after_id": str(after.request_id),
            }
        rows = await self._store.query(
            f"SELECT toUnixTimestamp64Micro(created_at), request_id, is_final FROM {REQUESTS}"  # noqa: S608
            f" WHERE {' AND '.join(conditions) or 'true'}"
            f" ORDER BY created_at DESC, request_id DESC LIMIT {limit:d}{_STOP_EARLY}",
            parameters,
        )
        return [(micros, request_id, is_final) for micros, request_id, is_final in rows]

    async def _fitting(
        self, wanted: ScannerFilter, lines: Iterable[tuple[int, UUID, bool]]
    ) -> list[_Place]:
        """Each request once, and those alone of which the attempt that counts fits."""
        is_final: dict[_Place, bool] = {}
        for micros, request_id, final in lines:
            place = _Place(micros, request_id)
            is_final[place] = is_final.get(place, False) or final
        open_ones = [place.micros for place, final in is_final.items() if not final]
        if not wanted.conditions:
            return list(is_final)
        fitting = await self._fitting_of(wanted, open_ones)
        return [place for place, final in is_final.items() if final or place in fitting]

    async def _fitting_of(self, wanted: ScannerFilter, times: Sequence[int]) -> set[_Place]:
        """Of the requests admitted at these times."""
        found: set[_Place] = set()
        fits = " AND ".join(wanted.conditions)
        for first in range(0, len(times), TIMES_AT_ONCE):
            rows = await self._store.query(
                f"SELECT toUnixTimestamp64Micro(created_at), request_id FROM {REQUESTS}"  # noqa: S608
                f" WHERE {_AT_TIMES} GROUP BY created_at, request_id"
                f" HAVING argMax({fits}, row_rank)",
                wanted.parameters | {"times": times[first : first + TIMES_AT_ONCE]},
            )
            found.update(_Place(*row) for row in rows)
        return found

    async def _shown(self, places: Sequence[_Place]) -> list[Shown]:
        """In the order of their places."""
        if not places:
            return []
        lines = await self._read(
            Shown,
            f"FROM {REQUESTS} WHERE {_AT_TIMES} AND request_id IN {{ids:Array(UUID)}}",
            {
                "times": [place.micros for place in places],
                "ids": [str(place.request_id) for place in places],
            },
        )
        lines.sort(key=lambda line: line.row_rank)
        best = {line.request_id: line for line in lines}
        # Of others at most the attempt that counts is billed.
        several = [line for line in best.values() if line.is_metered and not line.is_final]
        costs = await self._costs(several)
        return [
            msgspec.structs.replace(line, cost_usd=costs.get(line.request_id, line.cost_usd))
            for line in map(best.get, [place.request_id for place in places])
            if line is not None
        ]

    async def _costs(self, requests: Collection[Shown]) -> dict[UUID, Decimal]:
        """Of all attempts, where more than one may be billed."""
        if not requests:
            return {}
        times = [line.created_at for line in requests]
        rows = await self._store.query(
            "SELECT request_id, sum(cost_usd) FROM ("  # noqa: S608
            f"SELECT DISTINCT request_id, row_id, cost_usd FROM {TABLE} WHERE {BETWEEN}"
            " AND toUnixTimestamp(toStartOfHour(created_at)) IN {hours:Array(UInt32)}"
            " AND request_id IN {ids:Array(UUID)}) GROUP BY request_id",
            {
                "ids": [str(line.request_id) for line in requests],
                "hours": sorted({int(hour_of(moment).timestamp()) for moment in times}),
                "low": microseconds(min(times)),
                "high": microseconds(max(times)) + 1,
            },
        )
        return dict(rows)

    async def _read(
        self, struct: type[S], source: str, parameters: Mapping[str, object]
    ) -> list[S]:
        names = struct.__struct_fields__
        columns = ", ".join(_EXPRESSIONS.get(name, name) for name in names)
        rows = await self._store.query(f"SELECT {columns} {source}", parameters)
        return [struct(**dict(zip(names, row, strict=True))) for row in rows]


_EXPRESSIONS = {"row_status": "status AS row_status"}
