"""Recomputes the hourly sums of a time from folded rows, and tells which hours were wrong."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.rollups import HOURLY, HOURLY_TAGS, KEY, TAG_KEY, Rollups
from shared.clickhouse.spend import TABLE
from shared.clickhouse.usage_filter import hour_at_or_after, hour_of, microseconds
from shared.clickhouse.usage_lines import BETWEEN, SUMS


class HourSums(NamedTuple):
    """What the tables know of an hour."""

    requests: int
    cost_usd: Decimal
    lines: int
    """A digest of all lines: totals may be right while a model has what is another's."""
    tag_lines: int


class Recomputed(NamedTuple):
    """One hour, before and after."""

    hour: datetime
    before: HourSums
    after: HourSums

    @property
    def has_changed(self) -> bool:
        return self.before != self.after


class Backfill:
    """Every method raises ClickHouseAway. May be repeated, cut short, or run beside the chore."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store
        self._rollups = Rollups(store)

    async def run(
        self, since: datetime, until: datetime, *, keep_days: int
    ) -> AsyncIterator[Recomputed]:
        """Each hour that has rows and is touched by the time, oldest first, once it is done.

        Hours whose rows are forgotten by policy (`keep_days`), or are all gone, keep their sums:
        those are all that is left of them.
        """
        oldest = await self._rollups.oldest(keep_days)
        hours = await self._hours(hour_of(since), hour_at_or_after(until))
        for hour in [hour for hour in hours if hour >= oldest]:
            before = await self._sums(hour)
            await self._rollups.recompute(hour)
            yield Recomputed(hour, before, await self._sums(hour))

    async def _hours(self, low: datetime, high: datetime) -> list[datetime]:
        rows = await self._store.query(
            f"SELECT DISTINCT toStartOfHour(created_at) AS hour FROM {TABLE}"  # noqa: S608
            f" WHERE {BETWEEN} ORDER BY hour",
            {"low": microseconds(low), "high": microseconds(high)},
        )
        return [hour for (hour,) in rows]

    async def _sums(self, hour: datetime) -> HourSums:
        parameters = {"hour": int(hour.timestamp())}
        ((requests, cost, lines),) = await self._store.query(_OF_LINES, parameters)
        ((_, _, tag_lines),) = await self._store.query(_OF_TAGS, parameters)
        return HourSums(requests, cost, lines, tag_lines)


def _digest(table: str, key: str) -> str:
    """Lines of zeros are as if they were not there."""
    return (
        f"SELECT sum(requests), sum(cost_usd), groupBitXor(cityHash64({key}, {', '.join(SUMS)}))"  # noqa: S608
        f" FROM {table} FINAL WHERE hour = toDateTime({{hour:UInt32}}, 'UTC') AND attempts > 0"
    )


_OF_LINES = _digest(HOURLY, KEY)
_OF_TAGS = _digest(HOURLY_TAGS, TAG_KEY)
