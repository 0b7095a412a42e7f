"""Processes and stores are killed while requests run: each call has its row, no cut stream looks whole."""

import asyncio
import os
import random
import time
from collections import Counter
from decimal import Decimal

import pytest

from tests.e2e.chaos import Killer, Logs, pace, resident_mib
from tests.e2e.ledger import Books
from tests.e2e.load import Load, Outcome
from tests.e2e.mixture import DRY_PROFILE, mixture
from tests.e2e.payers import Manager, account, billed
from tests.e2e.receipts import receipt_faults
from tests.e2e.started import StartedGateway
from tests.e2e.stillness import rest, until_still

PROCESSES = ("api", "worker", "metering", "background")
STORES = ("valkey", "clickhouse", "postgres")
LIMITS = {"concurrent": 10_000, "requests_per_minute": 10**6, "tokens_per_minute": 10**9}
"""Never reached: they are counted all the same."""
MOST_MIB = 400.0
"""Python with everything imported is 115; thousands of requests must not add as much again."""


async def test_kills_lose_no_row_and_complete_no_cut_stream(gateway: StartedGateway):
    # Each of the seven roles dies twice.
    await torment(gateway, requests=1900, kills=14, per_second=50.0)


@pytest.mark.torture
async def test_kills_at_full_size(gateway: StartedGateway):
    await torment(gateway, requests=100_000, kills=140, per_second=90.0)


async def torment(gateway: StartedGateway, *, requests: int, kills: int, per_second: float) -> None:
    seed = int(os.environ.get("GATEWAY_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"\nseed {seed}", flush=True)  # now, so that a run that is cut off can be repeated
    rng = random.Random(seed)
    ready, books = gateway.ready, Books(gateway.ready)
    until_still(ready)
    payer = f"tormented-{seed}"
    key = Manager(gateway).user(payer, Decimal(9_000_000), limits=LIMITS)
    since, load, logs = books.mark(), Load(ready.base_url, key), Logs(gateway)
    killer = Killer(gateway, PROCESSES + STORES, rng)
    async with pace(gateway, first_token_ms=20, tokens_per_second=100), asyncio.TaskGroup() as all_:
        all_.create_task(killer.run(kills, requests / per_second))
        all_.create_task(load.run(mixture(requests, rng), per_second=per_second))
    rested, unrest = await asyncio.to_thread(rest, ready, sweeps=True)
    verdict = books.reconcile(since, dry_profile=DRY_PROFILE)
    paid = sum((cost for _, cost in await billed(gateway, payer)), Decimal(0))
    counted = account(gateway, payer)
    misled = receipt_faults(load.results, books.rows(since))
    memory = {
        role: [round(resident_mib(pid)) for pid in gateway.ready.pids[role]] for role in PROCESSES
    }
    print(  # the figures are what the test is for
        f"{requests} requests, {killer.kills.total()} kills {dict(killer.kills)}"
        f", {killer.outages} of them outages"
        f"\n  clients: {dict(load.counts())}"
        f"\n  errors: {dict(Counter(result.detail for result in load.of(Outcome.ERROR)))}"
        f"\n  ledger: {verdict}"
        f"\n  billed {paid} USD, counted {counted}"
        f"\n  receipts: {len(misled)} wrong {misled[:3]}"
        f"\n  left after {rested:.1f} s: {unrest or 'nothing'}, memory MiB {memory}"
    )
    assert load.of(Outcome.WRONG) == [], f"seed {seed}"
    assert sum(load.counts().values()) == requests
    assert killer.kills.total() == kills
    assert verdict.is_clean, f"seed {seed}: {verdict}\n{gateway.logs()}"
    assert misled == [], f"seed {seed}"
    assert int(counted["spend"]) == int(paid.scaleb(9)), f"seed {seed}"
    assert int(counted["held"]) == 0, f"seed {seed}"
    assert "running" not in counted, f"seed {seed}"
    assert unrest == {}, f"seed {seed}"
    assert min(verdict.cached, verdict.dry_runs, verdict.statuses["lost"]) > 0, f"seed {seed}"
    assert load.counts()[Outcome.COMPLETE] > requests / 2, f"seed {seed}: {load.counts()}"
    assert logs.tracebacks() == []
    assert max(mib for some in memory.values() for mib in some) < MOST_MIB
