"""Counters changed by hand are found and set right on a real Valkey, in rest and under traffic."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

import msgspec
import pytest
from typing_extensions import override

from api import reconcile
from api.cli.reconcile import difference_table
from api.reconcile import Difference, Reconciliation
from shared.account import Account
from shared.errors import Overloaded
from shared.money import ZERO, from_nano
from shared.spend import Charge, KeySpender, Spender, SpendReader, decode_row, encode_row
from shared.valkey.inbox import Ending
from tests.integration.holds import HELD_NANO, admit, an_account, held, load
from tests.integration.queue import INBOX, Queue
from tests.spend_rows import spend_row

COST = 1_000
CALM, BUSY = an_account("calm"), an_account("busy")


class Ledger(SpendReader):
    """Gets its rows from the stream, as metering would bring them."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.sums: dict[str, Decimal] = {}

    async def meter(self) -> None:
        """Inserts all there is, then acknowledges."""
        client, stream = self._queue.client, self._queue.keys.spend
        for entry, fields in await client.call(b"XRANGE", stream, b"-", b"+"):
            for row in map(decode_row, fields[1::2]):
                self.sums[row.user] = self.sums.get(row.user, ZERO) + row.cost_usd
            await client.call(b"XDEL", stream, entry)

    @override
    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        return [self.sums.get(one.user, ZERO) for one in spenders]

    @override
    async def spent_by_keys(self, keys: Sequence[KeySpender]) -> list[Decimal]:
        return [ZERO] * len(keys)


class Owners:
    """Who has a budget."""

    def __init__(self, *accounts: Account) -> None:
        self._accounts = list(accounts)

    async def budgeted(self) -> list[Account]:
        return self._accounts


@pytest.fixture
async def ledger(queue: Queue) -> Ledger:
    for account in (CALM, BUSY):
        await load(queue, account)
    return Ledger(queue)


@pytest.fixture
def reconciliation(queue: Queue, ledger: Ledger) -> Reconciliation:
    return Reconciliation(queue.client, [queue.keys], Owners(CALM, BUSY), ledger)


async def run_job(queue: Queue, account: Account) -> None:
    """From admission to settlement, with a row."""
    header = await admit(queue, account)
    entry = await queue.client.call(b"HGET", queue.keys.job(header.request_id), b"entry")
    row = spend_row(COST, user=account.owner, billed=True)
    end = Ending(
        request_id=header.request_id, lane="default", entry=entry, token=b"1:w", frames=(),
        rows=(encode_row(msgspec.structs.replace(row, tenant="default")),), charge=Charge(COST, 1),
    )  # fmt: skip
    assert await queue.poster.settle(queue.client, INBOX, [end]) == [b"ok"]


async def change(queue: Queue, account: Account, field: str, by: int) -> None:
    await queue.client.call(b"HINCRBY", queue.keys.account(account.suffix), field, by)


async def spent(queue: Queue, account: Account) -> Decimal:
    name = queue.keys.account(account.suffix)
    return from_nano(int(await queue.client.call(b"HGET", name, b"spend")))


def told(found: Sequence[Difference]) -> set[tuple[str, str, Decimal, Decimal]]:
    return {(one.account, one.what, one.counter, one.lowest) for one in found}


@contextlib.asynccontextmanager
async def traffic(queue: Queue, ledger: Ledger) -> AsyncIterator[None]:
    """One account is charged all the time, the other now and then; rows are metered in batches."""

    async def ask(account: Account, pause: float) -> None:
        while True:
            await run_job(queue, account)
            await asyncio.sleep(pause)

    async def meter() -> None:
        while True:
            await ledger.meter()
            await asyncio.sleep(0.03)

    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(one) for one in (ask(BUSY, 0.002), ask(CALM, 0.4), meter())]
        await asyncio.sleep(0.2)
        yield
        for loop in loops:
            loop.cancel()


async def test_counters_that_are_right_are_left_alone(queue, reconciliation, ledger):
    await run_job(queue, CALM)
    await admit(queue, CALM)
    await ledger.meter()
    assert await reconciliation.differences(fix=True) == []
    assert await held(queue, CALM) == (HELD_NANO, 1)
    assert difference_table([]) == ["every counter is right"]


async def test_counters_changed_by_hand_are_found_and_set(queue, reconciliation, ledger):
    await run_job(queue, CALM)
    await admit(queue, CALM)
    await ledger.meter()
    await change(queue, CALM, "spend", 5)
    await change(queue, CALM, "held", -3)
    await change(queue, BUSY, "running", 2)
    expected = {
        (CALM.suffix, "spend", from_nano(COST + 5), from_nano(COST)),
        (CALM.suffix, "held", from_nano(HELD_NANO - 3), from_nano(HELD_NANO)),
        (BUSY.suffix, "running", Decimal(2), Decimal(0)),
    }
    found = await reconciliation.differences(fix=False)
    assert told(found) == expected
    assert not any(one.is_fixed for one in found)
    assert difference_table(found)[0].split() == "account what counter should be state".split()
    fixed = await reconciliation.differences(fix=True)
    assert told(fixed) == expected
    assert all(one.is_fixed for one in fixed)
    assert await reconciliation.differences(fix=False) == []
    assert (await spent(queue, CALM), await held(queue, CALM)) == (from_nano(COST), (HELD_NANO, 1))
    assert await held(queue, BUSY) == (0, 0)


async def test_a_hold_that_lost_its_account_is_found(queue, reconciliation):
    await admit(queue, CALM)
    await queue.client.call(b"DEL", queue.keys.account(CALM.suffix))
    found = await reconciliation.differences(fix=True)
    assert {one.what for one in found} == {"held", "running"}
    assert await held(queue, CALM) == (HELD_NANO, 1)
    loaded = await queue.client.call(b"HEXISTS", queue.keys.account(CALM.suffix), b"spend")
    assert loaded == 0, "its spend is for the ledger to say, when it is asked for"


async def test_what_is_right_is_right_under_traffic_too(queue, reconciliation, ledger):
    async with asyncio.timeout(30), traffic(queue, ledger):
        for _ in range(3):
            assert await reconciliation.differences(fix=True) == []


async def test_under_traffic_what_is_wrong_is_found_and_set_exactly(queue, reconciliation, ledger):
    async with asyncio.timeout(30), traffic(queue, ledger):
        await change(queue, CALM, "spend", 777_777)
        for account in (CALM, BUSY):
            await change(queue, account, "held", 10**6)
            await change(queue, account, "running", 3)
        found = await reconciliation.differences(fix=True)
        assert {(one.account, one.what) for one in found} == {
            (CALM.suffix, "spend"),
            *((one.suffix, what) for one in (CALM, BUSY) for what in ("held", "running")),
        }
        assert all(one.is_fixed for one in found)
        assert await reconciliation.differences(fix=False) == []
    await settled(queue)
    await ledger.meter()
    for account in (CALM, BUSY):
        assert await spent(queue, account) == ledger.sums[account.owner]


async def settled(queue: Queue) -> None:
    """Ends what the traffic was cut off from."""
    for claim in await queue.claimed():
        await queue.admission.cancel(queue.client, claim.request_id, claim.lane)
    assert [await held(queue, one) for one in (CALM, BUSY)] == [(0, 0)] * 2


class RestlessLedger(Ledger):
    """Something is charged before each of its answers, and after."""

    @override
    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        await run_job(self._queue, BUSY)
        await self.meter()
        answer = await super().spent(spenders)
        await run_job(self._queue, BUSY)
        await self.meter()
        return answer


async def test_of_an_account_that_is_charged_all_the_time_bounds_are_told_and_nothing_is_set(
    queue, reconciliation, ledger
):
    restless = RestlessLedger(queue)
    owners = Owners(CALM, BUSY)
    assert (
        await Reconciliation(queue.client, [queue.keys], owners, restless).differences(fix=True)
        == []
    ), "as long as it may be right, it is"
    await change(queue, BUSY, "spend", 10**9)
    [found] = await Reconciliation(queue.client, [queue.keys], owners, restless).differences(
        fix=True
    )
    assert (found.account, found.what, found.is_fixed) == (BUSY.suffix, "spend", False)
    by = (found.counter - found.highest, found.counter - found.lowest)
    assert by == (1 - from_nano(COST), 1 + from_nano(COST))
    assert difference_table([found])[1].endswith("differs")
    ledger.sums = restless.sums
    [known] = await reconciliation.differences(fix=True)
    assert (known.is_fixed, known.counter - known.lowest) == (True, Decimal(1))
    assert await spent(queue, BUSY) == ledger.sums["busy"]


async def test_a_ledger_that_gets_no_rows_cannot_be_compared(queue, reconciliation, monkeypatch):
    monkeypatch.setattr(reconcile, "DRAIN_SECONDS", 0.1)
    await run_job(queue, CALM)
    with pytest.raises(Overloaded, match="nothing can be compared"):
        await reconciliation.differences(fix=True)
