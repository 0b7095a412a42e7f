"""Jobs that hold something on an account, on a real Valkey: for tests of those that release it."""

from decimal import Decimal

from shared.account import Account, Budget, RateLimits, user_account
from shared.hold import Hold
from shared.job import JobHeader
from shared.valkey.accounts import Accounts
from shared.valkey.terms import Terms
from tests.integration.queue import LIMITS, Queue, a_header

HELD_NANO = 7_000
BUDGET = Budget(budget_id="b", max_nano=10**12, started_ms=0)


def an_account(user: str = "someone") -> Account:
    return user_account("default", user, RateLimits(concurrent=100), BUDGET)


async def load(queue: Queue, account: Account, spent: Decimal = Decimal(0)) -> None:
    accounts, budget = Accounts(queue.keys), account.budget
    assert budget is not None
    begun = await accounts.begin_load(queue.client, account.suffix, job_seconds=60)
    assert begun is not None
    assert await accounts.finish_load(queue.client, account.suffix, begun, spent, budget)


async def admit(queue: Queue, account: Account, **changes: object) -> JobHeader:
    """A job that holds and is counted."""
    header = a_header(user=account.owner, **changes)
    terms = Terms([account], Hold(nano=HELD_NANO), header.admitted_at)
    await queue.admission.admit(queue.client, header, b"sealed", LIMITS, terms)
    return header


async def held(queue: Queue, account: Account) -> tuple[int, int]:
    """Nano-dollars held, and jobs that run."""
    name = queue.keys.account(account.suffix)
    nano, running = await queue.client.call(b"HMGET", name, b"held", b"running")
    return int(nano or 0), int(running or 0)
