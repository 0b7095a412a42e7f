"""Reads the Scanner's statistics of a day or a month, as new as the last round of the rollups."""

import asyncio
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.scanner_sums import COUNTS, LEVELS, PRECISION, SUMS

Window = Literal["24h", "30d"]

MAX_MODELS = 500
"""Of a table. Whoever has a key may ask a provider for models of any name."""


class _Grains(NamedTuple):
    length: timedelta
    of_sums: str
    of_quantiles: str


GRAINS: dict[Window, _Grains] = {
    "24h": _Grains(timedelta(hours=24), "minute", "hour"),
    "30d": _Grains(timedelta(days=30), "hour", "day"),
}


class Quantiles(msgspec.Struct, frozen=True):
    """Of milliseconds; None: nothing was measured."""

    median: float | None
    p95: float | None


NONE = Quantiles(None, None)


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model, or of all."""

    model: str
    creators: list[str]
    providers: list[str]
    tiers: list[str]
    last_at: datetime
    """When the minute or hour of the last one began."""
    requests: int
    completed: int
    cancelled: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    cost_usd: Decimal
    latency: Quantiles = NONE
    ttft: Quantiles = NONE

    @property
    def failed(self) -> int:
        return self.requests - self.completed - self.cancelled


class Statistics(NamedTuple):
    since: datetime
    as_of: datetime
    """Requests whose rows came before are counted; 1970: there never was a round."""
    total: Sums | None
    """None: there was no request."""
    active_models: int
    models: list[Sums]
    """Those with most requests first, and no more than MAX_MODELS."""


class ScannerStatistics:
    """Every method raises ClickHouseAway."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store
        self._rollups = Rollups(store)

    async def read(self, window: Window, *, now: datetime) -> Statistics:
        grains = GRAINS[window]
        since = _begin(grains.of_sums, now - grains.length)
        as_of, sums, quantiles = await asyncio.gather(
            self._rollups.until(),
            self._store.query(_SUMS, _parameters(grains.of_sums, since)),
            self._store.query(
                _QUANTILES, _parameters(grains.of_quantiles, _begin(grains.of_quantiles, since))
            ),
        )
        measured = {
            (is_total, model): (_quantiles(latency), _quantiles(ttft))
            for is_total, model, latency, ttft in quantiles
        }
        lines = [
            (is_total, active, _sums(values, *measured.get((is_total, values[0]), (NONE, NONE))))
            for is_total, active, *values in sums
        ]
        totals = [(active, line) for is_total, active, line in lines if is_total]
        active, total = totals[0] if totals else (0, None)
        models = [line for is_total, _, line in lines if not is_total]
        return Statistics(since, as_of, total, active, models)


def _begin(grain: str, moment: datetime) -> datetime:
    """Of the minute, hour or day that a moment is in."""
    whole = moment.replace(second=0, microsecond=0)
    if grain == "minute":
        return whole
    whole = whole.replace(minute=0)
    return whole if grain == "hour" else whole.replace(hour=0)


def _parameters(grain: str, since: datetime) -> dict[str, object]:
    return {"grain": grain, "since": int(since.timestamp())}


def _sums(values: Sequence[Any], latency: Quantiles, ttft: Quantiles) -> Sums:
    names = Sums.__struct_fields__[: len(values)]
    return Sums(**dict(zip(names, values, strict=True)), latency=latency, ttft=ttft)


def _quantiles(found: Sequence[float]) -> Quantiles:
    return Quantiles(*(None if math.isnan(one) else one for one in found))


_LINES = (
    f"FROM {SUMS} AS lines FINAL WHERE grain = {{grain:String}}"
    " AND at >= toDateTime({since:UInt32}, 'UTC') AND lines.requests > 0"
    " GROUP BY model WITH ROLLUP"
)
_SUMS = (
    "SELECT grouping(model) AS is_total, uniqExact(model), model, groupUniqArray(creator),"
    " groupUniqArray(provider), groupUniqArray(tier), max(at),"
    f" {', '.join(f'sum(lines.{name}) AS {name}' for name in COUNTS)} {_LINES}"
    f" ORDER BY is_total DESC, requests DESC, model LIMIT {MAX_MODELS + 1}"
)
_QUANTILES = (
    "SELECT grouping(model), model,"
    f" quantilesDDMerge({PRECISION}, {LEVELS})(latency_ms),"
    f" quantilesDDMerge({PRECISION}, {LEVELS})(ttft_ms) {_LINES}"
)
