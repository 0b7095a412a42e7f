"""Puts settled receipts into the transparency log, and signs its new head."""

import asyncio

import structlog

from shared.metrics import Metrics
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.transparency_log import LogBroken, TransparencyLog

EVERY_SECONDS = 1.0
MOST_AT_ONCE = 500
BROKEN_SECONDS = 60.0
"""Somebody has to look; until then nothing is appended."""

log = structlog.get_logger()


class Tree:
    """The loop of one background process; others may run the same."""

    def __init__(self, store: TransparencyLog, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                while await self._store.append(MOST_AT_ONCE) is not None:
                    pass  # there may be more
                # Asked for, because another process may have appended, or one before this.
                head = await self._store.head()
                self._metrics.log_size.set(0 if head is None else head.tree_size)
            except LogBroken as error:
                self._metrics.attestation_alarms.labels("log_broken").inc()
                log.error("The log is not as it was signed", action="log_broken", reason=str(error))
                await asyncio.sleep(BROKEN_SECONDS)
            except STORE_ERRORS as error:
                log.warning("The log waits", action="log_waits", error=type(error).__name__)
