"""Loads the spend of accounts from the ledger, when admission finds that Valkey does not know it.

That is so for an account's first request, after its window was set anew, and when Valkey has lost
its memory. Requests of the account wait meanwhile; those of others do not.
"""

import asyncio

import structlog
from msgspec.structs import replace

from shared.account import Account, Budget
from shared.clickhouse.client import ClickHouseAway
from shared.clock import Clock
from shared.errors import Overloaded
from shared.spend import SpendReader, spent_between, spent_on
from shared.valkey.accounts import Accounts, Load
from shared.valkey.client import Client, CommandRefused, ValkeyAway

LOAD_SECONDS = 35.0
"""Rows that a dead metering process had claimed are taken over after 15 to 30 s."""
LOOK_SECONDS = 0.05
"""Between two looks whether the rows have reached the ledger: they are inserted about each second."""

log = structlog.get_logger()


class AccountLoader:
    """Of one shard, in one process."""

    def __init__(
        self, client: Client, accounts: Accounts, ledger: SpendReader, clock: Clock
    ) -> None:
        self._clock = clock
        self._client = client
        self._accounts = accounts
        self._ledger = ledger
        self._loading: dict[str, asyncio.Future[None]] = {}

    async def load(self, account: Account, *, job_seconds: float) -> None:
        """Returns when it may be tried again. Raises Overloaded: store_unavailable."""
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                if (other := self._loading.get(account.suffix)) is not None:
                    await asyncio.shield(other)
                else:
                    await self._load_for_all(account, job_seconds)
        except (TimeoutError, ValkeyAway, CommandRefused, ClickHouseAway) as error:
            log.warning("Spend cannot be loaded", action="unloaded", error=type(error).__name__)
            raise Overloaded(
                "What was spent cannot be read.", code="store_unavailable", retry_after=1.0
            ) from error

    async def _load_for_all(self, account: Account, job_seconds: float) -> None:
        """One request asks, the others wait: whatever came of it, they try again."""
        mine = self._loading[account.suffix] = asyncio.get_running_loop().create_future()
        try:
            while not await self._load(account, job_seconds):
                continue  # a job of it has ended meanwhile; no new one is let in
        finally:
            del self._loading[account.suffix]
            mine.set_result(None)

    async def _load(self, account: Account, job_seconds: float) -> bool:
        """Order matters: note what is on its way, wait until the ledger has it, then ask."""
        load = await self._accounts.begin_load(
            self._client, account.suffix, job_seconds=job_seconds
        )
        if load is None or account.budget is None:
            return True
        await self._until_drained(load)
        budget = await self._present(account, account.budget)
        spent = await spent_on(self._ledger, account, budget.since_ms)
        return await self._accounts.finish_load(self._client, account.suffix, load, spent, budget)

    async def _present(self, account: Account, budget: Budget) -> Budget:
        """In its present window. One that has ended is not loaded and then reset: what was spent in
        the window that is under way would be forgiven. Announced again it is one reset all the same.
        """
        now_ms = int(self._clock.now() * 1000)
        if budget.resets_ms is None or now_ms < budget.resets_ms:
            return budget
        at, after = budget.window_at(now_ms)
        spent = await spent_between(self._ledger, account, budget.since_ms, at)
        await self._accounts.announce_reset(
            self._client, account.suffix, budget, spent=spent, now_ms=now_ms
        )
        return replace(budget, since_ms=at, started_ms=at, resets_ms=after)

    async def _until_drained(self, load: Load) -> None:
        while True:
            if await self._accounts.has_drained(self._client, load.last_row):
                return
            await asyncio.sleep(LOOK_SECONDS)
