"""The ledger's chores: hourly sums are brought up to date, their lag is told, old rows forgotten.

They are cron jobs of arq beside those of `housekeeping`. When ClickHouse is away a chore is put
off, and comes round again.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from arq import cron
from arq.cron import CronJob
from arq.typing import WorkerCoroutine

from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.retention import keep_rows
from shared.clickhouse.rollups import Rollups
from shared.metrics import Metrics

CHORE_SECONDS = 50
"""A round that takes longer is given up; the next goes on with the hours that are left."""
HOURS_A_ROUND = 500
"""An hour of 14,000 rows takes 50 ms."""

TWENTY_SECONDS = {10, 30, 50}
FIFTEEN_SECONDS = {5, 20, 35, 50}
FIVE_MINUTES = set(range(0, 60, 5))

log = structlog.get_logger()


class LedgerChores:
    """What the background process does for the ledger."""

    def __init__(self, store: ClickHouse, metrics: Metrics, *, keep_days: int) -> None:
        """`keep_days` of spend rows are kept; 0: all."""
        self._store = store
        self._rollups = Rollups(store)
        self._metrics = metrics
        self._keep_days = keep_days

    def jobs(self) -> list[CronJob]:
        """arq's schedule. Of several background processes one does a round; all tell the lag."""
        return [
            _job(self.roll_up, second=TWENTY_SECONDS),
            _job(self.tell_lag, second=FIFTEEN_SECONDS, unique=False),
            _job(self.forget_rows, second={40}, minute=FIVE_MINUTES),
        ]

    async def roll_up(self, _ctx: dict[str, Any]) -> None:
        await _tried("rollups", self._roll_up)

    async def tell_lag(self, _ctx: dict[str, Any]) -> None:
        await _tried("rollup_lag", self._tell_lag)

    async def forget_rows(self, _ctx: dict[str, Any]) -> None:
        await _tried("retention", self._forget_rows)

    async def _roll_up(self) -> None:
        done = await self._rollups.refresh(most=HOURS_A_ROUND, keep_days=self._keep_days)
        self._metrics.usage_hours.inc(done.hours)
        log.debug("Hours were summed", action="rolled_up", count=done.hours)

    async def _tell_lag(self) -> None:
        self._metrics.usage_lag.set(await self._rollups.lag_seconds())

    async def _forget_rows(self) -> None:
        if await keep_rows(self._store, days=self._keep_days):
            log.info(
                "How long spend rows are kept was changed",
                action="retention_changed",
                days=self._keep_days,
            )


async def _tried(kind: str, chore: Callable[[], Awaitable[None]]) -> None:
    try:
        await chore()
    except ClickHouseAway as error:
        log.warning("A chore was put off", action="chore_put_off", kind=kind, reason=str(error))


def _job(
    chore: Callable[[dict[str, Any]], Awaitable[None]],
    *,
    second: set[int],
    minute: set[int] | None = None,
    unique: bool = True,
) -> CronJob:
    return cron(
        cast("WorkerCoroutine", chore),  # arq's type asks for arguments that a cron job never gets
        second=second,
        minute=minute,
        unique=unique,
        timeout=CHORE_SECONDS,
        keep_result=0,
        max_tries=1,
    )
