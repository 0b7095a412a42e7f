"""A store that is away: waited for with backoff, told in one line when it goes and when it is back."""

import asyncio
import random

import structlog

from shared.clock import Clock

FIRST_WAIT_SECONDS = 0.1
MAX_WAIT_SECONDS = 5.0
"""Rows are safe while we wait; five seconds late is not felt, more load on an ill server is."""

log = structlog.get_logger()


class Outage:
    """One store's state."""

    def __init__(self, store: str, clock: Clock) -> None:
        self.store = store
        self._clock = clock
        self._wait = FIRST_WAIT_SECONDS
        self._since: float | None = None

    @property
    def is_on(self) -> bool:
        return self._since is not None

    async def wait(self, reason: str, stop: asyncio.Event | None = None) -> None:
        """Begins or goes on: waits, longer each time, or until `stop`."""
        if self._since is None:
            self._since = self._clock.monotonic()
            log.warning(
                "A store is away; spend rows wait",
                action="store_away",
                store=self.store,
                reason=reason,
            )
        # Jitter, so that processes that lost the same server do not come back as one.
        await rest(self._wait * random.uniform(0.5, 1.0), stop)  # noqa: S311
        self._wait = min(MAX_WAIT_SECONDS, self._wait * 2)

    def end(self) -> bool:
        """The store has answered. True if it was away before."""
        if self._since is None:
            return False
        log.info(
            "The store is back",
            action="store_back",
            store=self.store,
            away_seconds=round(self._clock.monotonic() - self._since, 3),
        )
        self._since = None
        self._wait = FIRST_WAIT_SECONDS
        return True


async def rest(seconds: float, stop: asyncio.Event | None = None) -> None:
    """Sleeps, or returns early once `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await (stop or asyncio.Event()).wait()
    except TimeoutError:
        return
