"""The chores of the background process: each looks for one kind of leftover, and says what it did.

They are cron jobs of arq. Nothing a request needs waits for one of them; when Valkey is away a
chore fails, is logged, and comes round again.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import structlog
from arq import cron
from arq.cron import CronJob
from arq.typing import WorkerCoroutine

from shared.clock import Clock, SystemClock
from shared.metrics import Metrics
from shared.valkey.client import ValkeyAway
from shared.valkey.housekeeping import Buried, Housekeeper

CHORE_SECONDS = 50
"""A chore that takes longer is given up; the next round goes on."""

TEN_SECONDS = set(range(0, 60, 10))
TEN_SECONDS_LATER = set(range(5, 60, 10))
"""Chores of one rhythm take turns."""
HALF_MINUTES = {8, 38}
HALF_MINUTES_LATER = {18, 48}
FIVE_MINUTES = set(range(0, 60, 5))

Answer = TypeVar("Answer")

log = structlog.get_logger()


class Housekeeping:
    """Who remembers, between rounds, what was already reported."""

    def __init__(
        self, housekeeper: Housekeeper, metrics: Metrics, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._keeper = housekeeper
        self._metrics = metrics
        self._buried: Buried | None = None

    def jobs(self) -> list[CronJob]:
        """arq's schedule. `unique`: of several background processes one does each round."""
        return [
            _at(self.sweep_inboxes, second=TEN_SECONDS),
            _at(self.sweep_uploads, second=TEN_SECONDS_LATER),
            _at(self.trim_streams, second=15),
            _at(self.report_buried, second=25),
            _at(self.sweep_orphans, second=HALF_MINUTES),
            _at(self.sweep_stranded, second=HALF_MINUTES_LATER),
            _at(self.forget_consumers, second=45, minute=FIVE_MINUTES),
            _at(self.forget_processes, second=55),
        ]

    async def sweep_inboxes(self, _ctx: dict[str, Any]) -> None:
        await self._count("inboxes", self._keeper.sweep_inboxes)

    async def sweep_uploads(self, _ctx: dict[str, Any]) -> None:
        await self._count("uploads", self._keeper.sweep_uploads)

    async def trim_streams(self, _ctx: dict[str, Any]) -> None:
        await self._count("kept_entries", self._keeper.trim_kept)
        await self._count("acked_entries", self._keeper.trim_acked)

    async def forget_consumers(self, _ctx: dict[str, Any]) -> None:
        await self._count("consumers", self._keeper.forget_consumers)

    async def forget_processes(self, _ctx: dict[str, Any]) -> None:
        await self._count("processes", lambda: self._keeper.forget_processes(self._clock.now()))

    async def report_buried(self, _ctx: dict[str, Any]) -> None:
        """Once for each change: a job is buried when it killed or outlived several workers."""
        buried = await _asked("buried", self._keeper.buried)
        if buried is not None and buried != self._buried:
            log.error(
                "Jobs were given up after too many deliveries",
                action="jobs_buried",
                count=buried.count,
                newest=buried.newest,
                reason=buried.reason,
            )
            self._buried = buried

    async def sweep_orphans(self, _ctx: dict[str, Any]) -> None:
        """Each one is told of as an error, since it is a bug to be understood."""
        orphans = await _asked("orphans", self._keeper.sweep_orphans)
        if orphans:
            self._metrics.housekeeping.labels("orphans").inc(len(orphans))
            log.error(
                "Job states were left whose entry was in no lane; what they held is released",
                action="jobs_orphaned",
                count=len(orphans),
                request_ids=orphans[:10],
            )

    async def sweep_stranded(self, _ctx: dict[str, Any]) -> None:
        await self._count("stranded", lambda: self._keeper.sweep_stranded(self._clock.now()))

    async def _count(self, kind: str, chore: Callable[[], Awaitable[int]]) -> None:
        done = await _asked(kind, chore)
        if done:
            self._metrics.housekeeping.labels(kind).inc(done)
            log.info("Leftovers were taken away", action="swept", kind=kind, count=done)


async def _asked(kind: str, chore: Callable[[], Awaitable[Answer]]) -> Answer | None:
    """None while Valkey is away: the next round asks again."""
    try:
        return await chore()
    except ValkeyAway as error:
        log.warning("A chore was put off", action="chore_put_off", kind=kind, reason=str(error))
        return None


def _at(
    chore: Callable[[dict[str, Any]], Awaitable[None]],
    *,
    second: int | set[int],
    minute: set[int] | None = None,
) -> CronJob:
    return cron(
        cast("WorkerCoroutine", chore),  # arq's type asks for arguments that a cron job never gets
        second=second,
        minute=minute,
        unique=True,
        timeout=CHORE_SECONDS,
        keep_result=0,
        max_tries=1,
    )
