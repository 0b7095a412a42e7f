"""Sums of usage by something: from the hourly tables, and from rows where those do not know yet."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.rollups import HOURLY, HOURLY_TAGS, HOURS, Rollups
from shared.clickhouse.usage_filter import UsageFilter, hour_at_or_after, hour_of, microseconds
from shared.clickhouse.usage_lines import BETWEEN, DIMENSIONS, SUMS, requests

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

    async def lines(self, wanted: UsageFilter, *, by: str, limit: int, skip: int = 0) -> list[Line]:
        """Requests without the tag are in no group of `tag:<name>`. Raises ValueError for a group
        that there is not."""
        tag = by.removeprefix(TAG_PREFIX) if by.startswith(TAG_PREFIX) else None
        if tag is None and by not in GROUPS:
            raise ValueError("no such group")
        source, parameters = await self._source(wanted, tag)
        order = "label" if by in TIMES else "cost_usd DESC, requests DESC, label"
        rows = await self._store.query(
            f"SELECT {GROUPS.get(by, 'value')} AS label, sum(lines.requests) AS requests,"  # noqa: S608
            f" sumIf(lines.requests, status = 'error') AS errors, {_FURTHER}"
            f" FROM ({source}) AS lines GROUP BY label HAVING requests > 0"
            f" ORDER BY {order} LIMIT {limit:d} OFFSET {skip:d}",
            parameters,
        )
        return [Line(**dict(zip(Line.__struct_fields__, row, strict=True))) for row in rows]

    async def _source(self, wanted: UsageFilter, tag: str | None) -> tuple[str, dict[str, object]]:
        """A subquery of lines, each of one hour and one group."""
        parameters = wanted.parameters | {
            "low": microseconds(wanted.since),
            "high": microseconds(wanted.until),
            "group_tag": tag or "",
        }
        if not is_rolled_up(wanted, tag):
            return _from_rows(wanted, tag, BETWEEN), parameters
        parts = Parts.of(wanted, await self._rollups.stale_hours())
        parameters |= {
            "first_hour": int(parts.low.timestamp()),
            "end_hour": int(parts.high.timestamp()),
            "hours": [int(hour.timestamp()) for hour in parts.hours],
        }
        rows = _from_rows(wanted, tag, f"{BETWEEN} AND toStartOfHour(created_at) IN {HOURS}")
        return f"{_from_hours(wanted, tag)} UNION ALL {rows}", parameters


_FURTHER = ", ".join(f"sum(lines.{name}) AS {name}" for name in SUMS if name != "requests")


def is_rolled_up(wanted: UsageFilter, tag: str | None) -> bool:
    """By tag the hours are kept by nothing else, and otherwise without the tags."""
    if tag is None:
        return wanted.tag is None
    return wanted.tag is None and all(getattr(wanted, name) is None for name in DIMENSIONS)


def _columns(tag: str | None) -> str:
    own = DIMENSIONS if tag is None else ("value",)
    return ", ".join(("tenant", "hour", *own, "status", *SUMS))


def _from_hours(wanted: UsageFilter, tag: str | None) -> str:
    conditions = [
        "hour >= toDateTime({first_hour:UInt32}, 'UTC')",
        "hour < toDateTime({end_hour:UInt32}, 'UTC')",
        f"hour NOT IN {HOURS}",
        *wanted.of_a_line,
        *([] if tag is None else ["tag = {group_tag:String}"]),
    ]
    table = HOURLY if tag is None else HOURLY_TAGS
    return f"SELECT {_columns(tag)} FROM {table} FINAL WHERE {' AND '.join(conditions)}"  # noqa: S608


def _from_rows(wanted: UsageFilter, tag: str | None, where: str) -> str:
    lines = requests(" AND ".join((where, *wanted.of_a_request)))
    conditions = list(wanted.of_a_line)
    if tag is not None:
        lines = f"SELECT *, tags[{{group_tag:String}}] AS value FROM ({lines})"  # noqa: S608
        conditions.append("mapContains(tags, {group_tag:String})")
    return f"SELECT {_columns(tag)} FROM ({lines}) WHERE {' AND '.join(conditions) or 'true'}"  # noqa: S608
