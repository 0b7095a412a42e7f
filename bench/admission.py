"""`python -m bench.admission`: what budgets and limits add to the admission of a job.

Jobs are admitted and cancelled again on a real Valkey, fifty to a call, as under load: without an
account; with limits of a user, a key and a model; with three holds beside them; and both together.
Counted is the CPU of the server and of this process for each job, in rounds that take turns.
"""

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from bench.process import cpu_by_role
from bench.stores import running_stores
from shared.account import Account, Budget, RateLimits, key_account, model_account, user_account
from shared.document import QueueLimits
from shared.hold import Hold
from shared.ids import new_id
from shared.job import JobHeader
from shared.valkey.accounts import Accounts
from shared.valkey.admission import Admission
from shared.valkey.client import Client, open_client
from shared.valkey.keys import ShardKeys
from shared.valkey.terms import Terms

KEYS = ShardKeys(0)
AT_ONCE = 50
BODY = bytes(400)
MANY = 1 << 30
LIMITED = RateLimits(requests_per_minute=MANY, tokens_per_minute=MANY, concurrent=MANY)
UNLIMITED = RateLimits()
BUDGET = Budget(budget_id="b", max_nano=9 * 10**15, started_ms=1)


class Cost(NamedTuple):
    """Microseconds of CPU for each job."""

    valkey: float
    own: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.admission", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=5000)
    given = parser.parse_args()
    with running_stores("valkey") as servers:
        pid = servers.pids["valkey"]
        costs = asyncio.run(
            measure(servers.urls.valkey_url, lambda: cpu_by_role({"valkey": [pid]})["valkey"],
                    rounds=given.rounds, jobs=given.jobs)
        )  # fmt: skip
    print_figures(costs)


async def measure(
    url: str, valkey_cpu: Callable[[], float], *, rounds: int, jobs: int
) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in CASES}
    async with open_client(url, name="bench") as client:
        for account in CASES["limits and three holds"]:
            await load(client, account)
        for number in range(rounds + 1):
            for name, accounts in CASES.items():
                cost = await one_round(client, accounts, jobs, valkey_cpu)
                if number:  # the first warms up
                    costs[name].append(cost)
    return costs


async def load(client: Client, account: Account) -> None:
    """Spend is known: nothing but the admission is measured."""
    accounts = Accounts(KEYS)
    begun = await accounts.begin_load(client, account.suffix, job_seconds=1)
    if begun is not None and account.budget is not None:
        await accounts.finish_load(client, account.suffix, begun, Decimal(0), account.budget)


async def one_round(
    client: Client, accounts: tuple[Account, ...], jobs: int, valkey_cpu: Callable[[], float]
) -> Cost:
    admission = Admission(KEYS)
    hold = Hold(nano=1_000_000, tokens=500)
    before, own = valkey_cpu(), own_cpu()
    for _ in range(jobs // AT_ONCE):
        now = time.time()
        headers = [a_header(now) for _ in range(AT_ONCE)]
        terms = Terms(accounts, hold, now) if accounts else None
        await asyncio.gather(
            *(admission.admit(client, one, BODY, QueueLimits(), terms) for one in headers)
        )
        await asyncio.gather(
            *(admission.cancel(client, one.request_id, one.lane) for one in headers)
        )
    spent = Cost(valkey_cpu() - before, own_cpu() - own)
    return Cost(*(seconds / jobs * 1e6 for seconds in spent))


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def a_header(now: float) -> JobHeader:
    return JobHeader(
        request_id=new_id(),
        reply_to="bench",
        lane="default",
        tenant="default",
        user="someone",
        key_id="key",
        model="model",
        config_hash="0" * 16,
        episode_id=new_id(),
        admitted_at=now,
        queue_seconds=60.0,
        total_seconds=600.0,
    )


def three(limits: RateLimits, budget: Budget | None) -> tuple[Account, ...]:
    return (
        user_account("default", "someone", limits, budget),
        key_account("default", "key", limits, budget),
        # Models have no budgets; a third hold stands for the anonymous user's beside them.
        model_account("model", limits)
        if budget is None
        else user_account("anonymous", "anonymous", limits, budget),
    )


CASES: dict[str, tuple[Account, ...]] = {
    "without": (),
    "limits": three(LIMITED, None),
    "three holds": three(UNLIMITED, BUDGET),
    "limits and three holds": three(LIMITED, BUDGET),
}


def print_figures(costs: dict[str, list[Cost]]) -> None:
    print("| admitted and cancelled | Valkey, µs | API process, µs | more than without, µs |")
    print("|---|---|---|---|")
    bare = _median(costs["without"])
    for name, found in costs.items():
        cost = _median(found)
        more = sum(cost) - sum(bare)
        print(f"| {name} | {cost.valkey:.1f} | {cost.own:.1f} | {more:.1f} |")


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(one.valkey for one in costs), statistics.median(one.own for one in costs)
    )


if __name__ == "__main__":
    main()
