"""The budgets' chore: windows that have ended are reset, also of those who ask for nothing.

It is a cron job of arq. An account that is loaded is reset by the script that admission uses; for the
others the same event is announced, with what the ledger says was spent.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import structlog
from arq import cron
from arq.cron import CronJob
from arq.typing import WorkerCoroutine

from shared.account import Account, Budget
from shared.clickhouse.client import ClickHouseAway
from shared.clock import Clock, utc
from shared.metrics import Metrics
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.windows import WindowStore
from shared.spend import SpendReader, spent_between
from shared.valkey.accounts import Accounts
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.keys import ShardKeys, shard_of

CHORE_SECONDS = 50
MOST_A_ROUND = 500
DRAIN_SECONDS = 10.0
"""Rows are inserted about each second; where it takes longer, the next round does it."""
LOOK_SECONDS = 0.1

log = structlog.get_logger()


class BudgetChores:
    """Of all shards."""

    def __init__(
        self,
        client: Client,
        shards: Sequence[ShardKeys],
        windows: WindowStore,
        ledger: SpendReader,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._client = client
        self._accounts = [Accounts(keys) for keys in shards]
        self._windows = windows
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock

    def jobs(self) -> list[CronJob]:
        """arq's schedule. Of several background processes one does each round."""
        chore = cast(
            "WorkerCoroutine", self.reset_due
        )  # arq's type asks for arguments it never gives
        return [
            cron(chore, second=20, unique=True, timeout=CHORE_SECONDS, keep_result=0, max_tries=1)
        ]

    async def reset_due(self, _ctx: dict[str, Any]) -> None:
        try:
            done = await self._reset_due()
        except (*STORE_ERRORS, ValkeyAway, CommandRefused, ClickHouseAway) as error:
            # The name alone: an error of Postgres holds the statement's values.
            log.warning(
                "A chore was put off",
                action="chore_put_off", kind="budgets", reason=type(error).__name__,
            )  # fmt: skip
            return
        if done:
            self._metrics.housekeeping.labels("budget_windows").inc(done)
            log.info("Budgets were reset", action="budgets_reset", count=done)

    async def _reset_due(self) -> int:
        now = self._clock.now()
        done = 0
        unloaded: list[Account] = []
        for account in await self._windows.due(utc(now), limit=MOST_A_ROUND):
            outcome = await self._accounts_of(account).reset(
                self._client, account.suffix, _budget(account), int(now * 1000)
            )
            done += outcome == "reset"
            if outcome == "unloaded":
                unloaded.append(account)
        return done + await self._reset_unloaded(unloaded, int(now * 1000))

    async def _reset_unloaded(self, accounts: Sequence[Account], now_ms: int) -> int:
        if not accounts:
            return 0
        for shard in self._accounts:
            await self._until_drained(shard)
        for account in accounts:
            budget = _budget(account)
            start, _ = budget.window_at(now_ms)
            spent = await spent_between(self._ledger, account, budget.since_ms, start)
            await self._accounts_of(account).announce_reset(
                self._client, account.suffix, budget, spent=spent, now_ms=now_ms
            )
        return len(accounts)

    async def _until_drained(self, shard: Accounts) -> None:
        """Raises TimeoutError, which is one of STORE_ERRORS."""
        last = await shard.last_row(self._client)
        async with asyncio.timeout(DRAIN_SECONDS):
            while not await shard.has_drained(self._client, last):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(LOOK_SECONDS)

    def _accounts_of(self, account: Account) -> Accounts:
        return self._accounts[shard_of(account.tenant, len(self._accounts))]


def _budget(account: Account) -> Budget:
    assert account.budget is not None  # noqa: S101 - the store gives those that have one
    return account.budget
