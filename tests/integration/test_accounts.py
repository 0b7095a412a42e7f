"""Budgets and limits on a real Valkey: what is held, charged, refused, reset and given back."""

import asyncio
import time
from decimal import Decimal

import pytest

from shared.account import Account, Budget, RateLimits, key_account, model_account, user_account
from shared.document import QueueLimits
from shared.errors import Internal, NotPermitted, TooManyRequests
from shared.hold import Hold
from shared.spend import Charge, charge_of, encode_row
from shared.valkey.accounts import Accounts
from shared.valkey.admission import Admitted
from shared.valkey.inbox import Ending
from shared.valkey.lane import Claim
from shared.valkey.terms import RateLimited, Terms, Unloaded
from tests.integration.queue import INBOX, Queue, a_header
from tests.spend_rows import spend_row

HOUR_MS = 3_600_000
START = 1_800_000_000.0
"""Epoch seconds, of the requests' clock: budgets know no other."""


def a_budget(most: int | None = 1000, **changes: object) -> Budget:
    values: dict[str, object] = {"budget_id": "b", "max_nano": most, "started_ms": 1}
    return Budget(**{**values, **changes})  # type: ignore[arg-type]


def of_user(limits: RateLimits | None = None, budget: Budget | None = None) -> Account:
    return user_account("default", "someone", limits or RateLimits(), budget)


class Bank:
    """Admits jobs on accounts, and ends them."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.accounts = Accounts(queue.keys)

    async def load(self, account: Account, spent: str = "0") -> bool:
        assert account.budget is not None
        load = await self.accounts.begin_load(self.queue.client, account.suffix, job_seconds=60)
        assert load is not None
        return await self.accounts.finish_load(
            self.queue.client, account.suffix, load, Decimal(spent), account.budget
        )

    async def admit(
        self,
        *accounts: Account,
        nano: int = 0,
        tokens: int = 0,
        at: float = START,
        free: bool = False,
    ) -> str:
        request_id, _ = await self.admitted(*accounts, nano=nano, tokens=tokens, at=at, free=free)
        return request_id

    async def admitted(
        self,
        *accounts: Account,
        nano: int = 0,
        tokens: int = 0,
        at: float = START,
        free: bool = False,
    ) -> tuple[str, Admitted]:
        header = a_header(admitted_at=at)
        terms = Terms(accounts, Hold(nano=nano, is_free=free, tokens=tokens), at)
        admitted = await self.queue.admission.admit(
            self.queue.client, header, b"sealed", QueueLimits(), terms
        )
        return header.request_id, admitted

    async def claim(self) -> Claim:
        (claim,) = await self.queue.claimed()
        return claim

    async def settle(self, claim: Claim, nano: int = 0, tokens: int = 0) -> bytes:
        row = spend_row(nano, tenant="default", user="someone", key_id="k", billed=True)
        end = Ending(
            request_id=claim.request_id, lane=claim.lane, entry=claim.entry, token=claim.token,
            frames=(), rows=[encode_row(row)], charge=Charge(nano, tokens),
        )  # fmt: skip
        (outcome,) = await self.queue.poster.settle(self.queue.client, INBOX, [end])
        return outcome

    async def money(self, account: Account) -> tuple[int, int]:
        """Spent and held, in nano-dollars."""
        (found,) = await self.accounts.counted(self.queue.client, [account.suffix])
        assert found.spent is not None
        return int(found.spent.scaleb(9)), int(found.held.scaleb(9))

    async def events(self) -> list[dict[str, str]]:
        entries = await self.queue.client.call(b"XRANGE", self.queue.keys.events, b"-", b"+")
        return [
            dict(zip(texts[::2], texts[1::2], strict=True))
            for texts in ([field.decode() for field in fields] for _, fields in entries)
        ]

    async def leftovers(self) -> set[bytes]:
        lasting = {self.queue.keys.sealed_bytes, self.queue.keys.loads}
        return await self.queue.keys_left() - lasting


@pytest.fixture
def bank(queue: Queue) -> Bank:
    return Bank(queue)


# ---- budgets


async def test_a_job_holds_its_worst_case_and_is_charged_what_it_cost(bank: Bank) -> None:
    account = of_user(budget=a_budget())
    await bank.load(account)
    await bank.admit(account, nano=400)
    assert await bank.money(account) == (0, 400)
    await bank.settle(await bank.claim(), nano=30)
    assert await bank.money(account) == (30, 0)


async def test_what_is_held_counts_as_spent_to_the_last_nano_dollar(bank: Bank) -> None:
    account = of_user(budget=a_budget(1000))
    await bank.load(account, "0.0000001")
    await bank.admit(account, nano=600)
    with pytest.raises(NotPermitted, match="User 'someone' has exceeded budget limit") as refused:
        await bank.admit(account, nano=301)
    assert refused.value.code == "budget_exceeded"
    await bank.admit(account, nano=300)
    assert await bank.money(account) == (100, 900)


async def test_a_spent_budget_lets_only_free_models_pass(bank: Bank) -> None:
    account = of_user(budget=a_budget(0))
    await bank.load(account)
    with pytest.raises(NotPermitted):
        await bank.admit(account, nano=0)
    await bank.admit(account, nano=0, free=True)


async def test_a_budget_without_a_maximum_counts_and_never_refuses(bank: Bank) -> None:
    account = of_user(budget=a_budget(None))
    await bank.load(account, "8999999")
    await bank.admit(account, nano=10**9)
    await bank.settle(await bank.claim(), nano=10**9)
    assert await bank.money(account) == (9_000_000 * 10**9, 0)


async def test_all_accounts_hold_or_none_does(bank: Bank) -> None:
    user = of_user(budget=a_budget(1000))
    key = key_account("default", "k", RateLimits(), a_budget(500))
    await bank.load(user)
    await bank.load(key)
    with pytest.raises(NotPermitted, match="API key has exceeded its budget limit"):
        await bank.admit(user, key, nano=501)
    assert await bank.money(user) == await bank.money(key) == (0, 0)
    await bank.admit(user, key, nano=500)
    assert await bank.money(user) == await bank.money(key) == (0, 500)


async def test_a_job_cancelled_before_it_began_holds_nothing_any_more(bank: Bank) -> None:
    account = of_user(RateLimits(concurrent=1), a_budget())
    await bank.load(account)
    request_id = await bank.admit(account, nano=400)
    queue = bank.queue
    assert await queue.admission.cancel(queue.client, request_id, "default") == "removed"
    assert await bank.money(account) == (0, 0)
    await bank.admit(account, nano=400)


async def test_settling_twice_charges_once(bank: Bank) -> None:
    account = of_user(budget=a_budget())
    await bank.load(account)
    await bank.admit(account, nano=400)
    claim = await bank.claim()
    assert await bank.settle(claim, nano=30) == b"ok"
    assert await bank.settle(claim, nano=30) == b"gone"
    assert await bank.money(account) == (30, 0)


async def test_a_job_given_back_holds_on(bank: Bank) -> None:
    account = of_user(budget=a_budget())
    await bank.load(account)
    await bank.admit(account, nano=400)
    queue = bank.queue
    assert await queue.lanes().give_back(queue.client, await bank.claim(), ()) == b"ok"
    assert await bank.money(account) == (0, 400)
    await bank.settle(await bank.claim(), nano=30)
    assert await bank.money(account) == (30, 0)


async def test_asking_again_holds_once(bank: Bank) -> None:
    account = of_user(RateLimits(requests_per_minute=5), a_budget())
    await bank.load(account)
    header, hold = a_header(), Hold(nano=400)
    for expected in ("admitted", "duplicate"):
        admitted = await bank.queue.admission.admit(
            bank.queue.client, header, b"sealed", QueueLimits(), Terms([account], hold, START)
        )
        assert admitted.outcome == expected
    assert await bank.money(account) == (0, 400)


async def test_a_hold_grows_while_the_budget_bears_it(bank: Bank) -> None:
    account = of_user(budget=a_budget(1000))
    await bank.load(account)
    await bank.admit(account, nano=400)
    claim = await bank.claim()
    client, queue = bank.queue.client, bank.queue
    outcome = await queue.lanes().attempt(
        client, claim, reply_to=INBOX, row_id="row", row=b"row", ended=()
    )
    assert outcome == b"ok"
    assert await bank.accounts.extend_hold(client, claim, 600) == b"ok"
    assert await bank.accounts.extend_hold(client, claim, 1) == b"denied"
    assert await bank.money(account) == (0, 1000)
    await bank.settle(claim, nano=30)
    assert await bank.money(account) == (30, 0)
    assert await bank.accounts.extend_hold(client, claim, 1) == b"gone"


async def test_a_soft_limit_warns_each_answer_and_is_told_once(bank: Bank) -> None:
    account = of_user(budget=a_budget(1000, soft_nano=500))
    await bank.load(account, "0.000000499")
    _, before = await bank.admitted(account, nano=1)
    assert before.standing is not None
    assert before.standing.soft_spent is None
    await bank.settle(await bank.claim(), nano=1)
    for _ in range(2):
        _, admitted = await bank.admitted(account, nano=1)
        assert admitted.standing is not None
        assert admitted.standing.soft_spent == (500, 1000)
    (event,) = await bank.events()
    assert (event["kind"], event["spend"], event["account"]) == (
        "budget_soft_limit", "500", account.suffix,
    )  # fmt: skip


async def test_a_job_ends_though_its_account_was_spoilt_and_others_of_its_call_are_admitted(
    bank: Bank,
) -> None:
    """Somebody wrote over an account by hand: money is in the ledger, work goes on."""
    client, account = bank.queue.client, of_user(budget=a_budget())
    other = key_account("default", "k2", RateLimits(), a_budget())
    await bank.load(account)
    await bank.load(other)
    await bank.admit(account, nano=400)
    claim = await bank.claim()
    await client.call(b"HSET", bank.queue.keys.account(account.suffix), b"held", b"nonsense")
    spoilt, sound = await asyncio.gather(
        bank.admit(account, nano=1), bank.admit(other, nano=1), return_exceptions=True
    )
    assert isinstance(spoilt, Internal)
    assert isinstance(sound, str)
    assert await bank.settle(claim, nano=30) == b"ok"
    assert len(await bank.queue.spend_rows()) == 1


async def test_an_account_that_was_deleted_by_hand_keeps_nobody_elses_place(bank: Bank) -> None:
    user, key = of_user(budget=a_budget()), key_account("default", "k", RateLimits(), a_budget())
    model = model_account("sim_echo", RateLimits(concurrent=1))
    for account in (user, key):
        await bank.load(account)
    await bank.admit(user, key, model, nano=400)
    claim = await bank.claim()
    await bank.queue.client.call(b"DEL", bank.queue.keys.account(user.suffix))
    await bank.load(user)
    assert await bank.settle(claim, nano=30) == b"ok"
    assert await bank.money(user) == (30, 0), "what was not held any more is no credit"
    assert await bank.money(key) == (30, 0)
    await bank.admit(key, model, nano=1)


async def test_a_hold_does_not_grow_on_an_account_that_is_not_loaded(bank: Bank) -> None:
    account = of_user(budget=a_budget())
    await bank.load(account)
    await bank.admit(account, nano=400)
    claim, queue = await bank.claim(), bank.queue
    await queue.lanes().attempt(
        queue.client, claim, reply_to=INBOX, row_id="row", row=b"row", ended=()
    )
    await queue.client.call(b"HDEL", queue.keys.account(account.suffix), b"spend")
    assert await bank.accounts.extend_hold(queue.client, claim, 1) == b"denied"


# ---- windows of budgets


async def test_a_window_that_is_over_begins_anew_and_keeps_what_is_held(bank: Bank) -> None:
    due = int(START * 1000)
    account = of_user(budget=a_budget(1000, duration_ms=HOUR_MS, resets_ms=due, started_ms=5))
    await bank.load(account, "0.0000009")
    await bank.admit(account, nano=100, at=START - 0.001)
    with pytest.raises(NotPermitted):
        await bank.admit(account, nano=1, at=START - 0.001)
    await bank.admit(account, nano=850, at=START)
    assert await bank.money(account) == (0, 950)
    (event,) = await bank.events()
    assert event == {
        "kind": "budget_reset", "account": account.suffix, "budget": "b", "spend": "900",
        "at": str(due), "next": str(due + HOUR_MS),
    }  # fmt: skip


async def test_a_job_is_charged_to_the_window_it_was_admitted_in(bank: Bank) -> None:
    due = int(START * 1000)
    account = of_user(budget=a_budget(1000, duration_ms=HOUR_MS, resets_ms=due, started_ms=5))
    await bank.load(account)
    await bank.admit(account, nano=100, at=START - 1)
    before = await bank.claim()
    await bank.admit(account, nano=200, at=START)
    after = await bank.claim()
    await bank.settle(before, nano=70)
    assert await bank.money(account) == (0, 200), "the window it belonged to is over"
    await bank.settle(after, nano=150)
    assert await bank.money(account) == (150, 0)


async def test_a_request_whose_clock_is_behind_cannot_overspend_the_window_before(
    bank: Bank,
) -> None:
    due = int(START * 1000)
    account = of_user(budget=a_budget(1000, duration_ms=HOUR_MS, resets_ms=due, started_ms=5))
    await bank.load(account, "0.000001")
    await bank.admit(account, nano=1, at=START)
    with pytest.raises(NotPermitted):
        await bank.admit(account, nano=1, at=START - 0.005)


async def test_windows_that_nobody_used_are_passed_over(bank: Bank) -> None:
    due = int(START * 1000)
    account = of_user(budget=a_budget(1000, duration_ms=HOUR_MS, resets_ms=due, started_ms=5))
    await bank.load(account, "0.0000009")
    await bank.admit(account, nano=1, at=START + 2.5 * HOUR_MS / 1000)
    (event,) = await bank.events()
    assert (event["at"], event["next"]) == (str(due + 2 * HOUR_MS), str(due + 3 * HOUR_MS))


async def test_a_window_set_anew_in_postgres_is_taken_over_and_spend_is_asked_again(
    bank: Bank,
) -> None:
    account = of_user(budget=a_budget(1000, started_ms=5))
    await bank.load(account, "0.000001")
    anew = of_user(budget=a_budget(1000, started_ms=6, resets_ms=int(START * 1000) + 1))
    with pytest.raises(Unloaded):
        await bank.admit(anew, nano=1)
    await bank.load(anew, "0.0000004")
    await bank.admit(account, nano=600)  # one that has not heard of it changes nothing
    assert await bank.money(anew) == (400, 600)


# ---- loading


async def test_an_account_that_is_not_loaded_admits_nobody(bank: Bank) -> None:
    account = of_user(budget=a_budget())
    with pytest.raises(Unloaded) as missing:
        await bank.admit(account, nano=1)
    assert missing.value.account is account
    assert await bank.queue.claimed() == []


async def test_a_load_waits_for_the_rows_that_were_written_before_it(bank: Bank) -> None:
    client, account = bank.queue.client, of_user(budget=a_budget())
    await bank.queue.admit()
    await bank.settle(await bank.claim(), nano=7)
    load = await bank.accounts.begin_load(client, account.suffix, job_seconds=60)
    assert load is not None
    assert not await bank.accounts.has_drained(client, load.last_row)
    entries = await client.call(b"XRANGE", bank.queue.keys.spend, b"-", b"+")
    await client.call(b"XDEL", bank.queue.keys.spend, entries[0][0])
    assert await bank.accounts.has_drained(client, load.last_row)


async def test_rows_written_after_a_load_began_do_not_hold_it_up(bank: Bank) -> None:
    client, account = bank.queue.client, of_user(budget=a_budget())
    load = await bank.accounts.begin_load(client, account.suffix, job_seconds=60)
    assert load is not None
    await bank.queue.admit(a_header(user="another"))
    await bank.settle(await bank.claim(), nano=7)
    assert await bank.accounts.has_drained(client, load.last_row)


async def test_a_load_begins_again_when_something_was_charged_meanwhile(bank: Bank) -> None:
    """A job that was admitted before its user had a budget ends while the ledger is asked."""
    client, account = bank.queue.client, of_user(budget=a_budget())
    await bank.queue.admit()
    claim = await bank.claim()
    load = await bank.accounts.begin_load(client, account.suffix, job_seconds=60)
    assert load is not None
    assert account.budget is not None
    await bank.settle(claim, nano=7)
    finish = bank.accounts.finish_load
    assert not await finish(client, account.suffix, load, Decimal(0), account.budget)
    assert await bank.load(account, "0.000000007")
    assert await bank.money(account) == (7, 0)


async def test_a_job_that_began_before_its_user_had_a_budget_is_charged_to_it(bank: Bank) -> None:
    account = of_user(budget=a_budget())
    key = key_account("default", "k", RateLimits(), a_budget())
    await bank.queue.admit(a_header(admitted_at=START))
    claim = await bank.claim()
    await bank.load(account)
    await bank.load(key)
    await bank.settle(claim, nano=7)
    assert await bank.money(account) == await bank.money(key) == (7, 0)


async def test_a_second_load_finds_the_first(bank: Bank) -> None:
    client, account = bank.queue.client, of_user(budget=a_budget())
    first = await bank.accounts.begin_load(client, account.suffix, job_seconds=60)
    assert first is not None
    assert account.budget is not None
    assert await bank.load(account, "0.000000005")
    finish = bank.accounts.finish_load
    assert await finish(client, account.suffix, first, Decimal(9), account.budget)
    assert await bank.money(account) == (5, 0)
    assert await bank.accounts.begin_load(client, account.suffix, job_seconds=60) is None


# ---- limits


async def test_requests_of_a_minute_are_counted_exactly(bank: Bank) -> None:
    account = of_user(RateLimits(requests_per_minute=3))
    left = []
    for _ in range(3):
        _, admitted = await bank.admitted(account)
        assert admitted.standing is not None
        assert admitted.standing.requests is not None
        left.append(admitted.standing.requests.left)
    assert left == [2, 1, 0]
    with pytest.raises(RateLimited, match="Rate limit exceeded") as refused:
        await bank.admit(account)
    assert refused.value.retry_after is not None
    assert 55 < refused.value.retry_after <= 60


async def test_a_refused_request_is_not_counted_and_one_refused_later_is(bank: Bank) -> None:
    limited = of_user(RateLimits(requests_per_minute=2), a_budget(0))
    await bank.load(limited)
    for _ in range(2):
        with pytest.raises(NotPermitted):
            await bank.admit(limited, nano=1)
    for _ in range(5):
        with pytest.raises(RateLimited):
            await bank.admit(limited, nano=1)
    window = bank.queue.keys.window(limited.suffix)
    assert await bank.queue.client.call(b"ZCARD", window) == 2


async def test_retry_after_is_true(bank: Bank) -> None:
    account = of_user(RateLimits(requests_per_minute=1))
    await bank.admit(account)
    window, client = bank.queue.keys.window(account.suffix), bank.queue.client
    await _age(bank, window, 59.7)
    with pytest.raises(RateLimited) as refused:
        await bank.admit(account)
    assert refused.value.standing.requests is not None
    wait = refused.value.standing.requests.reset_seconds
    assert 0 < wait < 0.31
    await asyncio.sleep(wait)
    await bank.admit(account)
    assert await client.call(b"ZCARD", window) == 1


async def _age(bank: Bank, window: bytes, seconds: float) -> None:
    """Makes what a window has counted older."""
    flat = await bank.queue.client.call(b"ZRANGE", window, 0, -1, b"WITHSCORES")
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        await bank.queue.client.call(b"ZADD", window, str(float(score) - seconds * 1000), member)


async def test_the_tightest_of_several_limits_decides(bank: Bank) -> None:
    user = of_user(RateLimits(requests_per_minute=9))
    key = key_account("default", "k", RateLimits(requests_per_minute=2))
    model = model_account("sim_echo", RateLimits(requests_per_minute=5))
    for left in (1, 0):
        _, admitted = await bank.admitted(user, key, model)
        assert admitted.standing is not None
        assert admitted.standing.requests is not None
        assert admitted.standing.requests[:2] == (2, left)
    with pytest.raises(RateLimited) as refused:
        await bank.admit(user, key, model)
    assert refused.value.account is key
    await bank.admit(user, model)


async def test_tokens_of_a_minute_flow_back_and_are_corrected_by_what_was_used(bank: Bank) -> None:
    account = of_user(RateLimits(tokens_per_minute=6000))
    await bank.admit(account, tokens=5900, at=time.time())
    with pytest.raises(RateLimited) as refused:
        await bank.admit(account, tokens=300)
    assert refused.value.retry_after is not None
    assert 1.0 <= refused.value.retry_after <= 2.1, "100 tokens come back each second"
    await bank.settle(await bank.claim(), tokens=100)
    _, admitted = await bank.admitted(account, tokens=300)
    assert admitted.standing is not None
    assert admitted.standing.tokens is not None
    assert 5590 <= admitted.standing.tokens.left <= 5700


async def test_what_one_answer_used_beyond_a_minute_shuts_nobody_out_for_longer(bank: Bank) -> None:
    account = model_account("sim_echo", RateLimits(tokens_per_minute=1000))
    await bank.admit(account, tokens=1, at=time.time())
    await bank.settle(await bank.claim(), tokens=2**31 - 1)
    with pytest.raises(RateLimited) as refused:
        await bank.admit(account, tokens=1000)
    assert refused.value.retry_after is not None
    assert 100 < refused.value.retry_after <= 120


async def test_tokens_that_have_flowed_back_are_not_given_back_again(bank: Bank) -> None:
    account = of_user(RateLimits(tokens_per_minute=60_000))
    await bank.admit(account, tokens=60_000, at=time.time() - 30)
    await bank.settle(await bank.claim())
    _, admitted = await bank.admitted(account, tokens=1)
    assert admitted.standing is not None
    assert admitted.standing.tokens is not None
    assert 29_000 < admitted.standing.tokens.left < 31_000


async def test_a_request_larger_than_the_bucket_waits_for_a_full_one(bank: Bank) -> None:
    account = of_user(RateLimits(tokens_per_minute=100))
    await bank.admit(account, tokens=5000)
    with pytest.raises(RateLimited) as refused:
        await bank.admit(account, tokens=5000)
    assert refused.value.retry_after is not None
    assert 59 < refused.value.retry_after <= 60


async def test_requests_at_a_time_are_bounded_and_leave_nothing_behind(bank: Bank) -> None:
    account = of_user(RateLimits(concurrent=2))
    await bank.admit(account)
    await bank.admit(account)
    with pytest.raises(TooManyRequests) as refused:
        await bank.admit(account)
    assert refused.value.code == "concurrency_limit"
    first, second = await bank.queue.claimed()
    await bank.settle(first)
    await bank.admit(account)
    await bank.settle(second)
    await bank.settle(await bank.claim())
    assert await bank.leftovers() == set()


async def test_a_probe_counts_a_request_that_is_refused_for_another_reason(bank: Bank) -> None:
    account = of_user(RateLimits(requests_per_minute=2, concurrent=1), a_budget(0))
    admission, client = bank.queue.admission, bank.queue.client
    terms = Terms([account], Hold(), START)
    for request_id in ("first", "second"):
        await admission.probe(client, request_id, terms)
    with pytest.raises(RateLimited):
        await admission.probe(client, "third", terms)


def test_a_charge_is_what_the_billed_rows_cost() -> None:
    rows = [spend_row(7, billed=True), spend_row(9, billed=False), spend_row(11, billed=True)]
    used = sum(row.usage.input_tokens + row.usage.output_tokens for row in (rows[0], rows[2]))
    assert charge_of(rows) == Charge(18, used)
