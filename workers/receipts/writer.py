"""Writes receipts, those that are ready together in one transaction (group commit)."""

import asyncio

import structlog

from shared.postgres.engine import STORE_ERRORS
from shared.postgres.receipts import ReceiptStore, SettledReceipt

MOST_AT_ONCE = 100
AGAIN_SECONDS = 0.5

log = structlog.get_logger()


class Writer:
    """`run` must be running. While Postgres is away receipts wait, and their transcripts with them."""

    def __init__(self, store: ReceiptStore) -> None:
        self._store = store
        self._waiting: list[tuple[SettledReceipt, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def write(self, receipt: SettledReceipt) -> None:
        """Returns when it is stored."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((receipt, stored))
        self._wake.set()
        await stored

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                await self._settle([receipt for receipt, _ in batch])
                for _, stored in batch:
                    if not stored.done():
                        stored.set_result(None)

    async def _settle(self, receipts: list[SettledReceipt]) -> None:
        while True:
            try:
                await self._store.settle(receipts)
            except STORE_ERRORS as error:
                log.warning("Receipts wait", action="receipts_wait", error=type(error).__name__)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return
