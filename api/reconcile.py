"""Compares the counters of accounts with what they stand for, while the gateway works: spend with the
ledger, holds with the jobs there are.

A counter that is wrong is wrong by an amount that does not change while it is charged. The ledger is
asked between two looks at the counter, once it has all that the first look counted: the amount is then
between the two differences, and each round of looks narrows it down.
"""

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from shared.account import Account, Budget, from_ms
from shared.errors import Overloaded
from shared.money import ZERO
from shared.spend import KeySpender, Spender, SpendReader
from shared.valkey.accounts import Accounts, Counted
from shared.valkey.client import Client
from shared.valkey.keys import ShardKeys, shard_of

ROUNDS = 5
DRAIN_SECONDS = 30.0
"""Rows are inserted about each second; longer means that metering, or ClickHouse, is away."""
LOOK_SECONDS = 0.05
ACCOUNTS_PER_ROUND = 500


class Budgeted(Protocol):
    async def budgeted(self) -> list[Account]:
        """Everybody who has a budget. Counters of others are not kept."""
        ...


class Difference(NamedTuple):
    """A counter, and what it should be: US dollars, or jobs. Under charges it is known within bounds
    only."""

    account: str
    what: Literal["spend", "held", "running"]
    counter: Decimal
    lowest: Decimal
    highest: Decimal
    is_fixed: bool


class _Wrong(NamedTuple):
    """By how much a counter is too high, within bounds; of one window."""

    since_ms: int
    counter: Decimal
    low: Decimal
    high: Decimal

    @property
    def is_known(self) -> bool:
        return self.low == self.high

    @property
    def is_certain(self) -> bool:
        """That there is a difference at all."""
        return not self.low <= 0 <= self.high

    def narrowed(self, before: "_Wrong | None") -> "_Wrong":
        if before is None or before.since_ms != self.since_ms:
            return self
        return self._replace(low=max(self.low, before.low), high=min(self.high, before.high))


class Reconciliation:
    """Of all shards."""

    def __init__(
        self, client: Client, shards: Sequence[ShardKeys], owners: Budgeted, ledger: SpendReader
    ) -> None:
        self._client = client
        self._shards = [Accounts(keys) for keys in shards]
        self._owners = owners
        self._ledger = ledger

    async def differences(self, *, fix: bool) -> list[Difference]:
        """Raises Overloaded where the ledger does not get its rows, and what the stores raise."""
        budgeted = await self._owners.budgeted()
        found: list[Difference] = []
        for number, shard in enumerate(self._shards):
            found += await self._holds(shard, fix)
            own = [one for one in budgeted if shard_of(one.tenant, len(self._shards)) == number]
            for at in range(0, len(own), ACCOUNTS_PER_ROUND):
                found += await self._spends(shard, own[at : at + ACCOUNTS_PER_ROUND], fix)
        return found

    async def _holds(self, shard: Accounts, fix: bool) -> list[Difference]:
        found: list[Difference] = []
        for one in await shard.compare_holds(self._client, fix=fix):
            if one.held != one.should_hold:
                should = one.should_hold
                found.append(Difference(one.suffix, "held", one.held, should, should, fix))
            if one.running != one.should_run:
                run = Decimal(one.should_run)
                found.append(Difference(one.suffix, "running", Decimal(one.running), run, run, fix))
        return found

    async def _spends(
        self, shard: Accounts, accounts: Sequence[Account], fix: bool
    ) -> list[Difference]:
        wrong: dict[str, _Wrong] = {}
        open_ = list(accounts)
        for _ in range(ROUNDS):
            for account, seen in await self._look(shard, open_):
                wrong[account.suffix] = seen.narrowed(wrong.get(account.suffix))
            open_ = [one for one in open_ if one.suffix in wrong and not wrong[one.suffix].is_known]
            if not open_:
                break
        found: list[Difference] = []
        for suffix, one in wrong.items():
            if one.is_certain:
                is_fixed = fix and one.is_known and await self._correct(shard, suffix, one)
                lowest, highest = one.counter - one.high, one.counter - one.low
                found.append(Difference(suffix, "spend", one.counter, lowest, highest, is_fixed))
        return found

    async def _correct(self, shard: Accounts, suffix: str, wrong: _Wrong) -> bool:
        return await shard.correct_spend(
            self._client, suffix, since_ms=wrong.since_ms, by=-wrong.low
        )

    async def _look(
        self, shard: Accounts, accounts: Sequence[Account]
    ) -> list[tuple[Account, _Wrong]]:
        """Order matters: the counters, then all their rows in the ledger, then the counters again."""
        before = await self._counted(shard, accounts)
        await self._until_drained(shard)
        spent = await self._spent(accounts, before)
        after = await self._counted(shard, accounts)
        return list(_compared(accounts, before, spent, after))

    async def _counted(self, shard: Accounts, accounts: Sequence[Account]) -> list[Counted]:
        return await shard.counted(self._client, [one.suffix for one in accounts])

    async def _until_drained(self, shard: Accounts) -> None:
        last = await shard.last_row(self._client)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not await shard.has_drained(self._client, last):  # noqa: ASYNC110 - metering's
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            raise Overloaded("Spend rows wait for ClickHouse: nothing can be compared.") from error

    async def _spent(
        self, accounts: Sequence[Account], counted: Sequence[Counted]
    ) -> dict[str, Decimal]:
        """By the suffix; since when each counter counts."""
        users: dict[str, Spender] = {}
        keys: dict[str, KeySpender] = {}
        for account, one in zip(accounts, counted, strict=True):
            since = from_ms(one.since_ms) if one.since_ms else None
            if account.kind == "key":
                keys[account.suffix] = KeySpender(account.owner, since)
            else:
                users[account.suffix] = Spender(account.tenant, account.owner, since)
        of_users = await self._ledger.spent(list(users.values()))
        of_keys = await self._ledger.spent_by_keys(list(keys.values()))
        return dict(zip((*users, *keys), (*of_users, *of_keys), strict=True))


def _compared(
    accounts: Sequence[Account],
    before: Sequence[Counted],
    spent: dict[str, Decimal],
    after: Sequence[Counted],
) -> Iterator[tuple[Account, _Wrong]]:
    """Those that are loaded, and counted in one window all the while."""
    for account, first, last in zip(accounts, before, after, strict=True):
        if account.budget is None or not _counts(account.budget, first):
            continue
        if last.spent is None or last.since_ms != first.since_ms:
            continue
        ledger = spent[account.suffix]
        low, high = (first.spent or ZERO) - ledger, last.spent - ledger
        yield account, _Wrong(first.since_ms, last.spent, low, high)


def _counts(budget: Budget, one: Counted) -> bool:
    return one.is_of(
        from_ms(budget.started_ms), from_ms(budget.since_ms) if budget.since_ms else None
    )
