"""Sums of usage by something: from the hourly tables, and from rows where those do not know yet."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.rollups import HOURLY, HOURLY_TAGS, Rollups
from shared.clickhouse.usage_filter import UsageFilter, hour_at_or_after, hour_of, microseconds
from shared.clickhouse.usage_lines import ADDED_UP, BETWEEN, SUMS, requests

TAG_PREFIX = "tag:"
GROUPS = {
    "model": "model",
    "user": "user",
    "key": "key_id",
    "provider": "provider",
    "tier": "tier",
    "endpoint": "endpoint",
    "tenant": "tenant",
    "day": "formatDateTime(hour, '%Y-%m-%d', 'UTC')",
    "hour": "formatDateTime(hour, '%Y-%m-%dT%H:00:00+00:00', 'UTC')",
}
"""Beside them `tag:<name>`."""
TIMES = ("day", "hour")
"""In order of time; all others have what cost most first."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What one group of requests adds up to."""

    group: str
    requests: int
    errors: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class Parts:
    """Which hours the hourly table answers for, and which must be summed from rows."""

    low: datetime
    high: datetime
    """Whole hours between these are in the hourly table, but for `hours`."""
    hours: tuple[datetime, ...]
    """From rows: what has news, and where the asked time begins or ends inside an hour."""

    @classmethod
    def of(cls, wanted: UsageFilter, stale: list[datetime]) -> "Parts":
        since, until = hour_of(wanted.since), hour_at_or_after(wanted.until)
        edges = {since} if since != wanted.since else set()
        if until != wanted.until:
            edges.add(hour_of(wanted.until))
        inside = {hour for hour in stale if since <= hour < until}
        return cls(since, until, tuple(sorted(edges | inside)))


class UsageSummary:
    """Raises ClickHouseAway, and ContentRefused for a filter that means nothing."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store
        self._rollups = Rollups(store)

    async def lines(
        self, wanted: UsageFilter, *, by: str, limit: int, skip: int = 0
    ) -> list[Line]:
        """Requests without the tag are in no group of `tag:<name>`. Raises ValueError for a group
        that there is not."""
        tag = by.removeprefix(TAG_PREFIX) if by.startswith(TAG_PREFIX) else None
        if tag is None and by not in GROUPS:
            raise ValueError("no such group")
        group = GROUPS.get(by, "value")
        source, parameters = await self._source(wanted, tag)
        order = "group" if by in TIMES else "cost_usd DESC, requests DESC, group"
        rows = await self._store.query(
            f"SELECT {group} AS group, sum(requests) AS requests,"  # noqa: S608
            f" sumIf(lines.requests, status = 'error') AS errors, {_REST}"
            f" FROM ({source}) AS lines GROUP BY group HAVING requests > 0"
            f" ORDER BY {order} LIMIT {limit:d} OFFSET {skip:d}",
            parameters,
        )
        return [Line(**dict(zip(Line.__struct_fields__, row, strict=True))) for row in rows]

    async def _source(
        self, wanted: UsageFilter, tag: str | None
    ) -> tuple[str, dict[str, object]]:
        """A subquery of lines, each of one hour and one group."""
        parameters = wanted.parameters | {
            "low": microseconds(wanted.since),
            "high": microseconds(wanted.until),
        }
        if tag is not None:
            parameters |= {"group_tag": tag}
        if not _is_rolled_up(wanted, tag):
            return _from_rows(wanted, tag, BETWEEN), parameters
        parts = Parts.of(wanted, await self._rollups.stale_hours())
        parameters |= {
            "from": int(parts.low.timestamp()),
            "to": int(parts.high.timestamp()),
            "hours": [int(hour.timestamp()) for hour in parts.hours],
        }
        rows = _from_rows(
            wanted, tag, f"{BETWEEN} AND toStartOfHour(created_at) IN {_HOURS}"
        )
        return f"{_from_hours(wanted, tag)} UNION ALL {rows}", parameters


_HOURS = "(SELECT toDateTime(arrayJoin({hours:Array(UInt32)}), 'UTC'))"
_REST = ", ".join(f"sum({name}) AS {name}" for name in SUMS if name != "requests")
