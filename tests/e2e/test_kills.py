"""Processes are killed while requests run: no call without its row, no cut stream that looks whole."""

import asyncio
import os
import random
import time

import pytest

from tests.e2e.chaos import Killer, Logs, pace, resident_mib
from tests.e2e.ledger import Books
from tests.e2e.load import Load, Outcome, orders
from tests.e2e.started import StartedGateway
from tests.e2e.stillness import until_still

ROLES = ("api", "worker", "metering")
MOST_MIB = 400.0
"""Python with everything imported is 115; thousands of requests must not add as much again."""


async def test_kills_lose_no_row_and_complete_no_cut_stream(gateway: StartedGateway):
    await torment(gateway, requests=1500, kills=10, per_second=50.0)


@pytest.mark.torture
async def test_kills_at_full_size(gateway: StartedGateway):
    await torment(gateway, requests=5000, kills=20, per_second=60.0)


async def torment(gateway: StartedGateway, *, requests: int, kills: int, per_second: float) -> None:
    seed = int(os.environ.get("GATEWAY_TEST_SEED") or time.time_ns() % 1_000_000)
    rng = random.Random(seed)
    ready, books = gateway.ready, Books(gateway.ready)
    until_still(ready)
    since, load, logs = books.mark(), Load(ready.base_url, ready.api_key), Logs(gateway)
    killer = Killer(gateway, ROLES, rng)
    async with pace(gateway, first_token_ms=20, tokens_per_second=100), asyncio.TaskGroup() as all_:
        all_.create_task(killer.run(kills, requests / per_second))
        all_.create_task(load.run(orders(requests, rng, panels=0.1), per_second=per_second))
    rested = until_still(ready)
    verdict = books.reconcile(since)
    memory = {
        role: [round(resident_mib(pid)) for pid in gateway.ready.pids[role]] for role in ROLES
    }
    print(  # the figures are what the test is for
        f"\nseed {seed}: {requests} requests, kills {dict(killer.kills)}"
        f"\n  clients: {dict(load.counts())}"
        f"\n  ledger: {verdict}"
        f"\n  at rest after {rested:.1f} s, memory MiB {memory}"
    )
    assert load.of(Outcome.WRONG) == [], f"seed {seed}"
    if not killer.kills["api"]:
        assert load.of(Outcome.CUT) + load.of(Outcome.LOST) == [], f"seed {seed}"
    assert sum(load.counts().values()) == requests
    assert verdict.is_clean, f"seed {seed}: {verdict}\n{gateway.logs()}"
    assert load.counts()[Outcome.COMPLETE] > requests / 2, f"seed {seed}: {load.counts()}"
    assert logs.tracebacks() == []
    assert max(mib for some in memory.values() for mib in some) < MOST_MIB
