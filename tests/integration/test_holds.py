"""Jobs that hold: the cap that goes to the provider, streams that pass it, and what is charged."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from shared.account import Account, Budget, RateLimits, user_account
from shared.hold import Hold
from shared.job import JobHeader
from shared.reply import Kind
from shared.valkey.accounts import Accounts
from shared.valkey.terms import Terms
from tests.integration.provider import Call, a_completion, scripted
from tests.integration.queue import Queue
from tests.integration.worker import Asker, a_worker, one_model

Json = dict[str, Any]

CAP = 10
WORD_NANO = 2_000
"""Of output, at the price of `one_model`: 2 USD a million."""


class Payer:
    """A user with a budget, who asks."""

    def __init__(self, asker: Asker, most: int) -> None:
        budget = Budget(budget_id="b", max_nano=most, started_ms=1)
        self.account: Account = user_account("default", "someone", RateLimits(), budget)
        self._asker = asker
        self._accounts = Accounts(asker.queue.keys)

    async def load(self) -> None:
        client, suffix = self._asker.queue.client, self.account.suffix
        load = await self._accounts.begin_load(client, suffix, job_seconds=60)
        assert load is not None
        assert self.account.budget is not None
        await self._accounts.finish_load(client, suffix, load, Decimal(0), self.account.budget)

    async def ask(self, hold: int = CAP * WORD_NANO, **options: Any) -> JobHeader:
        terms = Terms([self.account], Hold(nano=hold), 1_800_000_000.0)
        return await self._asker.ask(terms=terms, hold_nano=hold, output_caps={"m": CAP}, **options)

    async def money(self) -> tuple[int, int]:
        (found,) = await self._accounts.counted(self._asker.queue.client, [self.account.suffix])
        assert found.spent is not None
        return int(found.spent.scaleb(9)), int(found.held.scaleb(9))


async def whole(call: Call) -> None:
    await call.respond(a_completion())


@pytest.mark.parametrize(
    ("asked", "settings", "sent"),
    [
        ({}, {}, {"max_tokens": CAP}),
        (
            {},
            {"output_cap_field": "max_completion_tokens"},
            {"max_completion_tokens": CAP},
        ),
        ({"max_tokens": 4}, {}, {"max_tokens": 4}),
        ({"max_completion_tokens": 4}, {}, {"max_completion_tokens": 4}),
    ],
)
async def test_what_is_held_for_is_the_cap_of_a_request_that_has_none(
    valkey_db: str, queue: Queue, asked: Json, settings: Json, sent: Json
) -> None:
    async with scripted(whole) as provider:
        catalog = one_model(provider.url, **settings)
        payer = Payer(Asker(queue, catalog), 10**9)
        await payer.load()
        async with a_worker(valkey_db, catalog):
            await payer._asker.ended(await payer.ask(body=asked))
    (call,) = provider.calls
    caps = ("max_tokens", "max_completion_tokens")
    assert {name: call.document[name] for name in caps if name in call.document} == sent


async def chatter(call: Call) -> None:
    """Heeds no cap."""
    await call.open_stream()
    for number in range(3 * CAP):
        await call.say(f"w{number} ")
        await asyncio.sleep(0.005)
    await call.say(finish=True)


async def test_a_stream_whose_provider_heeds_no_cap_holds_more_while_the_budget_bears_it(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(chatter) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        payer = Payer(asker, 100 * WORD_NANO)
        await payer.load()
        async with a_worker(valkey_db, catalog) as worker:
            replies = await asker.ended(await payer.ask(stream=True))
            assert replies.kinds[-1] == Kind.END
            assert worker.metrics.hold_overruns.labels().value == 0
    (row,) = await asker.rows()
    assert await payer.money() == (int(row.cost_usd.scaleb(9)), 0)


async def test_a_stream_ends_where_its_budget_does_not_bear_more(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(chatter) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        payer = Payer(asker, CAP * WORD_NANO)
        await payer.load()
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await payer.ask(stream=True))
    assert replies.error.code == "budget_exceeded"
    assert b"[DONE]" not in replies.bytes
    (row,) = await asker.rows()
    assert (row.status, row.error_code, row.billed) == ("failed", "budget_exceeded", True)
    assert await payer.money() == (int(row.cost_usd.scaleb(9)), 0)


async def test_what_costs_more_than_its_hold_is_charged_in_full_and_told(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(whole) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        payer = Payer(asker, 10**9)
        await payer.load()
        async with a_worker(valkey_db, catalog) as worker:
            await asker.ended(await payer.ask(hold=1))
            assert worker.metrics.hold_overruns.labels().value == 1
    (row,) = await asker.rows()
    assert row.cost_usd > 0
    assert await payer.money() == (int(row.cost_usd.scaleb(9)), 0)
