"""Windows of budgets end: in Valkey, then in Postgres, in the history and at the webhook, once each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from shared.account import Account, from_ms, user_suffix
from shared.clock import StillClock, utc
from shared.errors import NotFound
from shared.metrics import Metrics
from shared.money import ZERO
from shared.postgres.audit import CLI
from shared.postgres.budgets import BudgetStore, BudgetTerms
from shared.postgres.engine import make_engine
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.migrate import migrate
from shared.postgres.users import NewUser, UserChange, UserStore
from shared.postgres.windows import Owner, Reset, WindowStore
from shared.spend import KeySpender, Spender, SpendReader
from shared.valkey.accounts import Accounts
from shared.valkey.events import EventStream
from tests.integration.queue import Queue
from workers import budget_events
from workers.budget_events import BudgetEvents, Sender
from workers.budgets import BudgetChores

MINUTE_MS = 60_000
USER = user_suffix("default", "u1")


class Ledger(SpendReader):
    """Everybody has spent this much since a time."""

    def __init__(self) -> None:
        self.spent_since: dict[datetime | None, Decimal] = {}

    @override
    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        return [self.spent_since.get(one.since, ZERO) for one in spenders]

    @override
    async def spent_by_keys(self, keys: Sequence[KeySpender]) -> list[Decimal]:
        return [self.spent_since.get(one.since, ZERO) for one in keys]


class Told(Sender):
    """Keeps what it is told; the first waits until it is let go."""

    def __init__(self, *, waits: bool = False) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.go_on = asyncio.Event()
        if not waits:
            self.go_on.set()

    @override
    async def send(self, message_id: str, body: bytes) -> str:
        self.messages.append((message_id, msgspec.json.decode(body)))
        await self.go_on.wait()
        return "delivered"


class Place:
    """Everything a background process has, on stores of its own."""

    def __init__(self, engine: AsyncEngine, queue: Queue) -> None:
        self.queue = queue
        # A time whose microseconds do not fit into a millisecond: what is stored must round alike.
        self.clock = StillClock(1_767_225_600.123_456)
        self.users, self.keys = UserStore(engine, self.clock), KeyStore(engine, self.clock)
        self.budgets, self.windows = BudgetStore(engine, self.clock), WindowStore(engine)
        self.accounts, self.ledger = Accounts(queue.keys), Ledger()
        self.metrics = Metrics()

    async def budget(self) -> str:
        terms = BudgetTerms(max_budget=Decimal(1), budget_duration_sec=60)
        return str((await self.budgets.create(terms, CLI)).budget_id)

    async def with_budget(self) -> Account:
        """Of a user u1 and a key of theirs, as admission reads it."""
        await self.users.create(NewUser(user_id="u1", budget_id=await self.budget()), CLI)
        await self.keys.create(KeyOptions(user_id="u1"), actor=CLI)
        return await self.account()

    async def account(self) -> Account:
        [key] = await self.keys.list_keys()
        record = (await self.keys.fetch_many([key.public_id]))[key.public_id]
        [account] = record.caller.accounts
        return account

    async def load(self, account: Account, spent: str) -> None:
        client, budget = self.queue.client, account.budget
        assert budget is not None
        load = await self.accounts.begin_load(client, account.suffix, job_seconds=60)
        assert load is not None
        loaded = await self.accounts.finish_load(
            client, account.suffix, load, Decimal(spent), budget
        )
        assert loaded

    async def reset(self, account: Account) -> str:
        assert account.budget is not None
        now_ms = int(self.clock.now() * 1000)
        client = self.queue.client
        return await self.accounts.reset(client, account.suffix, account.budget, now_ms)

    async def counter(self, suffix: str = USER) -> dict[bytes, bytes]:
        flat = await self.queue.client.call(b"HGETALL", self.queue.keys.account(suffix))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def stream(self, consumer: str = "one") -> EventStream:
        return EventStream(self.queue.client, [self.queue.keys], consumer)

    def chores(self) -> BudgetChores:
        return BudgetChores(
            self.queue.client, [self.queue.keys], self.windows, self.ledger, self.metrics,
            self.clock,
        )  # fmt: skip

    async def waiting(self) -> int:
        return int(await self.queue.client.call(b"XLEN", self.queue.keys.events))

    @contextlib.asynccontextmanager
    async def running(self, sender: Sender | None = None) -> AsyncIterator[None]:
        events = BudgetEvents(self.stream(), self.windows, sender, self.metrics)
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(events.run())
            yield
            loop.cancel()

    async def deal_with_events(self, sender: Sender | None = None) -> None:
        async with asyncio.timeout(10), self.running(sender):
            while await self.waiting():  # noqa: ASYNC110 - of the loop beside it
                await asyncio.sleep(0.02)


@pytest.fixture
async def place(database_url: str, queue: Queue) -> AsyncIterator[Place]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    yield Place(engine, queue)
    await engine.dispose()


async def test_a_reset_is_in_the_history_and_postgres_has_the_very_window_of_the_counter(place):
    account = await place.with_budget()
    await place.load(account, "0.25")
    assert await place.reset(account) == "current"
    place.clock.advance(200)
    assert await place.reset(account) == "reset"
    told = Told()
    await place.deal_with_events(told)
    started_ms = 1_767_225_600_123 + 3 * MINUTE_MS
    user = await place.users.get("u1")
    assert user.budget_started_at == user.spend_since == from_ms(started_ms)
    assert user.next_budget_reset_at == from_ms(started_ms + MINUTE_MS)
    [line] = await place.windows.history_of_user("u1", tenant="default")
    assert (line.previous_spend, line.reset_at) == (Decimal("0.25"), user.budget_started_at)
    assert (line.user_id, line.key_id, line.budget_id) == ("u1", "", user.budget_id)
    [(message_id, body)] = told.messages
    assert message_id.startswith("evt_")
    assert body["type"] == "budget.reset"
    assert body["data"] == {
        "tenant": "default", "user_id": "u1", "key_id": None, "budget_id": str(user.budget_id),
        "previous_spend": 0.25, "reset_at": from_ms(started_ms).isoformat(),
        "next_reset_at": from_ms(started_ms + MINUTE_MS).isoformat(),
    }  # fmt: skip
    # What Postgres says now must not make the counter look outdated.
    again = await place.account()
    assert again.budget is not None
    assert again.budget.started_ms == again.budget.since_ms == started_ms
    assert await place.reset(again) == "current"
    assert (await place.counter())[b"spend"] == b"0"


async def test_the_same_reset_twice_is_one_line_and_changes_nothing_more(place):
    account = await place.with_budget()
    assert account.budget is not None
    reset = Reset(
        account=USER, budget_id=account.budget.budget_id, previous_nano=5, next_ms=None,
        at_ms=account.budget.started_ms + MINUTE_MS,
    )  # fmt: skip
    assert await place.windows.reset(reset) == Owner("default", "u1")
    after = await place.users.get("u1")
    assert await place.windows.reset(reset) == Owner("default", "u1")
    assert await place.users.get("u1") == after
    assert len(await place.windows.history_of_user("u1", tenant="default")) == 1


async def test_a_window_that_management_has_set_later_stays(place):
    account = await place.with_budget()
    assert account.budget is not None
    place.clock.advance(90)
    kept = await place.users.update("u1", UserChange(budget_id=account.budget.budget_id), CLI)
    reset = Reset(
        account=USER, budget_id=account.budget.budget_id, previous_nano=5, next_ms=None,
        at_ms=account.budget.started_ms + MINUTE_MS,
    )  # fmt: skip
    await place.windows.reset(reset)
    assert await place.users.get("u1") == kept
    assert len(await place.windows.history_of_user("u1", tenant="default")) == 1
    other = await place.users.update("u1", UserChange(budget_id=await place.budget()), CLI)
    later = msgspec.structs.replace(reset, at_ms=reset.at_ms + 10 * MINUTE_MS)
    await place.windows.reset(later)
    assert await place.users.get("u1") == other, "it is another budget by now"


async def test_a_keys_reset_is_the_keys_and_one_of_a_deleted_key_is_nobodys(place):
    key, made = await place.keys.create(KeyOptions(budget_id=await place.budget()), actor=CLI)
    place.clock.advance(61)
    [account] = await place.windows.due(utc(place.clock.now()), limit=10)
    assert (account.kind, account.owner) == ("key", key.public_id)
    await place.load(account, "0.5")
    assert await place.reset(account) == "reset"
    await place.deal_with_events()
    [line] = await place.windows.history_of_key(made)
    assert (line.key_id, line.user_id, line.previous_spend) == (
        key.public_id, made.user_id, Decimal("0.5")
    )  # fmt: skip
    assert await place.windows.history_of_user(made.user_id, tenant="default") == []
    assert await place.windows.due(utc(place.clock.now()), limit=10) == []
    place.clock.advance(60)
    assert await place.reset(account) == "reset"
    await place.keys.delete(key.public_id, CLI)
    await place.deal_with_events()
    assert len(await place.windows.history_of_key(made)) == 1


async def test_who_asks_for_nothing_is_reset_by_the_clock(place):
    account = await place.with_budget()
    await place.load(account, "0.25")
    await place.chores().reset_due({})
    assert await place.waiting() == 0, "the window has not ended"
    place.clock.advance(60.001)
    await place.chores().reset_due({})
    assert (await place.counter())[b"spend"] == b"0"
    await place.chores().reset_due({})
    assert await place.waiting() == 1
    await place.deal_with_events()
    [line] = await place.windows.history_of_user("u1", tenant="default")
    assert line.previous_spend == Decimal("0.25")


async def test_who_is_not_loaded_is_reset_with_what_the_ledger_says(place):
    account = await place.with_budget()
    budget = account.budget
    assert budget is not None
    place.clock.advance(150)
    new_start = from_ms(budget.started_ms + 2 * MINUTE_MS)
    place.ledger.spent_since = {None: Decimal("0.75"), new_start: Decimal("0.05")}
    await place.chores().reset_due({})
    await place.deal_with_events()
    [line] = await place.windows.history_of_user("u1", tenant="default")
    assert (line.previous_spend, line.reset_at) == (Decimal("0.70"), new_start)
    user = await place.users.get("u1")
    assert user.budget_started_at == user.spend_since == new_start
    assert user.next_budget_reset_at == new_start + timedelta(minutes=1)
    assert await place.counter() == {}
    await place.chores().reset_due({})
    assert await place.waiting() == 0


async def test_an_event_that_somebody_left_is_taken_over_and_told_under_the_same_id(
    place, monkeypatch
):
    monkeypatch.setattr(budget_events, "TAKE_OVER_SECONDS", 0.05)
    account = await place.with_budget()
    await place.load(account, "0.25")
    place.clock.advance(61)
    await place.reset(account)
    dead = place.stream("dead")
    await dead.ensure_groups()
    [left] = await dead.claim(10)
    await asyncio.sleep(0.1)
    told = Told()
    await place.deal_with_events(told)
    assert [message_id for message_id, _ in told.messages] == [left.stable_id]
    assert len(await place.windows.history_of_user("u1", tenant="default")) == 1


async def test_a_webhook_that_hangs_keeps_no_window_from_being_moved(place):
    account = await place.with_budget()
    await place.load(account, "0.25")
    place.clock.advance(61)
    await place.reset(account)
    told = Told(waits=True)
    async with asyncio.timeout(10), place.running(told):
        while len(told.messages) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        place.clock.advance(60)
        await place.reset(account)
        while len(await place.windows.history_of_user("u1", tenant="default")) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert await place.waiting() == 2, "neither is forgotten before it was told"
        told.go_on.set()
        while await place.waiting():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert len({message_id for message_id, _ in told.messages}) == 2


async def test_what_cannot_be_read_is_put_away_and_the_rest_goes_on(place):
    account = await place.with_budget()
    await place.load(account, "0.25")
    for words in ((b"kind", b"other"), (b"kind", b"budget_reset", b"account", b"x", b"budget",
                                        b"b", b"spend", b"0")):  # fmt: skip
        await place.queue.client.call(b"XADD", place.queue.keys.events, b"*", *words)
    place.clock.advance(61)
    await place.reset(account)
    await place.deal_with_events()
    assert len(await place.windows.history_of_user("u1", tenant="default")) == 1


async def test_the_history_of_a_user_that_never_was_is_not_found(place):
    with pytest.raises(NotFound, match="User with id 'nobody' not found"):
        await place.windows.history_of_user("nobody", tenant="default")
    await place.with_budget()
    await place.users.delete("u1", CLI)
    assert await place.windows.history_of_user("u1", tenant="default") == []
    assert await place.windows.due(utc(place.clock.now() + 120), limit=10) == []
