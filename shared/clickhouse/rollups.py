"""Recomputes the hourly sums of usage: each hour with news, whole, from folded rows.

A round may be repeated, cut short at any point, or run beside another: an hour is written in one
insert, the newest computation of a line counts, and the mark moves only when no hour is left.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.scanner_sums import SCANNER_DAY, SCANNER_HOUR
from shared.clickhouse.spend import TABLE
from shared.clickhouse.usage_filter import EPOCH, HOUR, microseconds
from shared.clickhouse.usage_lines import (
    ADDED_UP,
    BETWEEN,
    DIMENSIONS,
    ONE_BLOCK,
    SUMS,
    requests,
)

HOURLY = "usage_hourly"
HOURLY_TAGS = "usage_hourly_tags"

SETTLING = timedelta(seconds=120)
"""An insert's rows have its begin as `inserted_at` and are seen after its end: twice a call's bound.
An hour is computed again until its last news is older than this."""

HOURS = "(SELECT toDateTime(arrayJoin({hours:Array(UInt32)}), 'UTC'))"
KEY = ", ".join(("tenant", "hour", *DIMENSIONS, "status"))
TAG_KEY = "tenant, hour, tag, value, status"


class Round(NamedTuple):
    hours: int
    """Recomputed."""
    until: datetime
    """Rows inserted before it are in the sums; EPOCH: there never was a whole round."""


class Rollups:
    """Every method raises ClickHouseAway."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    async def refresh(self, *, most: int, keep_days: int = 0) -> Round:
        """Up to `most` hours; the mark stays where it is while there are more.

        Of hours whose rows may have been forgotten by now (`keep_days`) the sums stay as they are.
        """
        now = await self._now()
        oldest = _oldest(now, keep_days)
        stale = [hour for hour in await self.stale_hours() if hour >= oldest]
        for hour in stale[:most]:
            await self.recompute(hour)
        if len(stale) > most:
            return Round(most, await self.until())
        await self._store.command(
            "INSERT INTO usage_rolled_up (until)"
            " VALUES (fromUnixTimestamp64Milli({until:Int64}, 'UTC'))",
            {"until": microseconds(now) // 1000},
        )
        return Round(len(stale), now)

    async def oldest(self, keep_days: int) -> datetime:
        """Hours that began before it may lack rows by policy."""
        return _oldest(await self._now(), keep_days)

    async def until(self) -> datetime:
        """Of the last whole round, by the server's clock."""
        ((until,),) = await self._store.query("SELECT max(until) FROM usage_rolled_up")
        found: datetime = until
        return found

    async def lag_seconds(self) -> float:
        """How long ago the last whole round began, or the oldest request before the first round;
        0 while there are no rows."""
        ((lag, rows),) = await self._store.query(
            "SELECT dateDiff('millisecond', greatest(min(created_at),"  # noqa: S608
            " (SELECT max(until) FROM usage_rolled_up)), now64(3, 'UTC')), count()"
            f" FROM {TABLE}"
        )
        return float(lag) / 1000 if rows else 0.0

    async def stale_hours(self) -> list[datetime]:
        """Hours with rows that their sums may lack, oldest first."""
        since = max(EPOCH, await self.until() - SETTLING)
        news = await self._store.query(
            f"SELECT toStartOfHour(created_at) AS hour, max(inserted_at) FROM {TABLE}"  # noqa: S608
            " WHERE inserted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
            " GROUP BY hour ORDER BY hour",
            {"since": microseconds(since) // 1000},
        )
        computed = await self._computed([hour for hour, _ in news])
        return [hour for hour, newest in news if newest + SETTLING >= computed.get(hour, EPOCH)]

    async def _computed(self, hours: list[datetime]) -> dict[datetime, datetime]:
        """When each of these hours was computed last, of those that ever were."""
        rows = await self._store.query(
            f"SELECT hour, max(computed_at) FROM {HOURLY} WHERE hour IN {HOURS} GROUP BY hour",  # noqa: S608
            {"hours": [int(hour.timestamp()) for hour in hours]},
        )
        return dict(rows)

    async def recompute(self, hour: datetime) -> None:
        """Its lines last: an hour counts as computed once they are there."""
        parameters = {"low": microseconds(hour), "high": microseconds(hour + HOUR)}
        await self._store.command(_TAGS, parameters)
        await self._store.command(SCANNER_HOUR, parameters)
        await self._store.command(SCANNER_DAY, parameters)
        await self._store.command(_LINES, parameters)

    async def _now(self) -> datetime:
        ((now,),) = await self._store.query("SELECT now64(3, 'UTC')")
        found: datetime = now
        return found


def _oldest(now: datetime, keep_days: int) -> datetime:
    return now - timedelta(days=keep_days) + HOUR if keep_days else EPOCH


def _replacing(table: str, key: str, fresh: str) -> str:
    """Writes the fresh lines, and zeros for those that were there and are not any more."""
    return (
        f"INSERT INTO {table} ({key}, {', '.join(SUMS)}, computed_at)"  # noqa: S608
        f" SELECT {key}, {ADDED_UP}, now64(3, 'UTC') FROM ({fresh} UNION ALL"
        f" SELECT {key}, {', '.join(f'0 AS {name}' for name in SUMS)} FROM {table}"
        " WHERE hour = toDateTime(intDiv({low:Int64}, 1000000), 'UTC')"
        f") GROUP BY {key}{ONE_BLOCK}"
    )


_LINES = _replacing(
    HOURLY,
    KEY,
    f"SELECT {KEY}, {', '.join(SUMS)} FROM ({requests(BETWEEN)})",  # noqa: S608
)
_TAGS = _replacing(
    HOURLY_TAGS,
    TAG_KEY,
    f"SELECT tenant, hour, tag, value, status, {', '.join(SUMS)} FROM ({requests(BETWEEN)})"  # noqa: S608
    " ARRAY JOIN mapKeys(tags) AS tag, mapValues(tags) AS value",
)
