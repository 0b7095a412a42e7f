"""Spend loaded from the ledger into Valkey, as admission asks for it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import pytest
from typing_extensions import override

from api.account_loader import AccountLoader
from shared.account import Account, Budget, RateLimits, from_ms, key_account, user_account
from shared.clickhouse.client import ClickHouseAway
from shared.clock import StillClock
from shared.errors import Overloaded
from shared.spend import KeySpender, Spender, SpendReader
from shared.valkey.accounts import Accounts
from tests.integration.queue import Queue

NOW = 1_800_000_000.0
HOUR_MS = 3_600_000
NANO = Decimal("0.000000001")


class Book(SpendReader):
    """A ledger of costs in nano-dollars, by when they were admitted in ms."""

    def __init__(self, **costs: int) -> None:
        self.costs = {int(at.removeprefix("at_")): cost for at, cost in costs.items()}
        self.asked = 0
        self.is_away = False

    @override
    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.is_away:
            raise ClickHouseAway("away")
        return [self._since(one.since) for one in spenders]

    @override
    async def spent_by_keys(self, keys: Sequence[KeySpender]) -> list[Decimal]:
        return [self._since(one.since) for one in keys]

    def _since(self, since: datetime | None) -> Decimal:
        first = 0 if since is None else round(since.timestamp() * 1000)
        return sum((cost for at, cost in self.costs.items() if at >= first), 0) * NANO


def loader(queue: Queue, book: Book, now: float = NOW) -> AccountLoader:
    return AccountLoader(queue.client, Accounts(queue.keys), book, StillClock(now))


def a_user(**budget: object) -> Account:
    values: dict[str, object] = {"budget_id": "b", "max_nano": 1000, "started_ms": 1, **budget}
    return user_account("default", "u", RateLimits(), Budget(**values))  # type: ignore[arg-type]


async def field(queue: Queue, account: Account, name: str) -> bytes | None:
    found: bytes | None = await queue.client.call(b"HGET", queue.keys.account(account.suffix), name)
    return found


async def test_many_requests_at_once_ask_the_ledger_once(queue: Queue) -> None:
    book, account = Book(at_5=700, at_9=42), a_user()
    loading = loader(queue, book)
    await asyncio.gather(*(loading.load(account, job_seconds=60) for _ in range(50)))
    assert await field(queue, account, "spend") == b"742"
    assert book.asked == 1


async def test_a_window_that_has_ended_is_not_loaded_and_the_present_one_is_not_forgiven(
    queue: Queue,
) -> None:
    due = int(NOW * 1000) - 10 * HOUR_MS // 4
    start = due + 2 * HOUR_MS
    book = Book(**{f"at_{due - 1}": 600, f"at_{start - 1}": 1, f"at_{start}": 400})
    account = a_user(since_ms=due - HOUR_MS, resets_ms=due, duration_ms=HOUR_MS)
    await loader(queue, book).load(account, job_seconds=60)
    assert await field(queue, account, "spend") == b"400"
    assert await field(queue, account, "since") == b"%d" % start
    [(_, event)] = await queue.client.call(b"XRANGE", queue.keys.events, b"-", b"+")
    told = dict(zip(event[::2], event[1::2], strict=True))
    assert (told[b"spend"], told[b"at"]) == (b"601", b"%d" % start)


async def test_a_key_is_loaded_from_its_own_rows(queue: Queue) -> None:
    account = key_account("default", "k", RateLimits(), a_user().budget)
    await loader(queue, Book(at_5=3)).load(account, job_seconds=60)
    assert await field(queue, account, "spend") == b"3"


async def test_without_the_ledger_nothing_is_known_and_nobody_is_kept_waiting(queue: Queue) -> None:
    book, account = Book(), a_user()
    book.is_away = True
    with pytest.raises(Overloaded) as refused:
        await loader(queue, book).load(account, job_seconds=60)
    assert refused.value.code == "store_unavailable"
    assert await field(queue, account, "spend") is None


def test_the_moment_of_a_window_is_exact_to_the_millisecond() -> None:
    assert round(from_ms(1_800_000_000_123).timestamp() * 1000) == 1_800_000_000_123
