"""Stores die, workers are paused, processes roll over, all while requests run."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import redis

from shared.valkey.keys import WORKERS_GROUP, ShardKeys
from shared.valkey.processes import decode_entry
from tests.e2e.chaos import Logs, eventually, pace
from tests.e2e.ledger import Books, repeated
from tests.e2e.load import Load, Order, Outcome, orders
from tests.e2e.started import StartedGateway, runs
from tests.e2e.stillness import until_still

SEED = 5
PER_SECOND = 30.0
LEASE_SECONDS = 1.0
"""As conftest.py sets it."""
OUTAGE_SECONDS = 2.5
"""Longer than two leases: idle time that ran on meanwhile must cost nobody a job."""
MEND_SECONDS = 30.0


async def killed_for_a_while(gateway: StartedGateway, server: str) -> None:
    """SIGKILL for a server; its supervisor is held so long that it cannot start it again."""
    assert gateway.process is not None
    pid = gateway.ready.pids[server][0]
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(OUTAGE_SECONDS)
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    await eventually(
        lambda: gateway.ready.pids[server] != [pid] and runs(gateway.ready.pids[server][0]),
        MEND_SECONDS,
    )


@pytest.mark.parametrize("server", ["valkey", "postgres", "clickhouse"])
async def test_a_killed_store_costs_no_row_and_runs_no_job_twice(
    gateway: StartedGateway, server: str
):
    ready, books = gateway.ready, Books(gateway.ready)
    until_still(ready)
    since, load, logs = books.mark(), Load(ready.base_url, ready.api_key), Logs(gateway)
    workers = ready.pids["worker"]
    async with pace(gateway, first_token_ms=20, tokens_per_second=40), asyncio.TaskGroup() as all_:
        all_.create_task(load.run(orders(300, random.Random(SEED)), per_second=PER_SECOND))
        await asyncio.sleep(3)
        await killed_for_a_while(gateway, server)
    rested = until_still(ready)
    verdict = books.reconcile(since)
    again = repeated(books.calls(since), books.rows(since))
    after = await Load(ready.base_url, ready.api_key).send(plain("after the outage"))
    print(
        f"\n{server} away for {OUTAGE_SECONDS} s: clients {dict(load.counts())}"
        f"\n  errors: {sorted({result.detail for result in load.of(Outcome.ERROR)})}"
        f"\n  ledger: {verdict}\n  at rest after {rested:.1f} s"
    )
    assert load.of(Outcome.WRONG) == []
    assert load.of(Outcome.CUT) == []
    assert load.of(Outcome.LOST) == []
    assert verdict.is_clean, f"{verdict}\n{gateway.logs()}"
    assert again == []
    assert logs.tracebacks() == []
    # No worker died, so nobody may have judged one by the silence of the outage.
    assert gateway.ready.pids["worker"] == workers
    assert verdict.statuses["lost"] == 0
    assert after.outcome == Outcome.COMPLETE, after
    # Without Valkey nothing is admitted; without Postgres no key is believed for longer than its
    # revocation may take. ClickHouse is needed by nobody who waits.
    allowed = FAULT_ANSWERS | ({"503 store_unavailable"} if server != "clickhouse" else set())
    assert {result.detail for result in load.of(Outcome.ERROR)} <= allowed


FAULT_ANSWERS = frozenset(
    {
        "400 invalid_value",
        "404 model_not_found",
        "429 upstream_rate_limited",
        "502 upstream_error",
        "502 upstream_protocol_error",
        "502 upstream_rejected_credentials",
        "stream upstream_error",
        "stream upstream_protocol_error",
    }
)


def plain(text: str, *, number: int = 0, stream: bool = True) -> Order:
    return Order(number=number, model="sim_echo", text=text, stream=stream)


def stuck_attempts(url: str, pid: int) -> dict[str, list[str]]:
    """Of each job the worker process holds: the attempts it has recorded and not ended."""
    keys = ShardKeys(0)
    with redis.Redis.from_url(url) as client:
        register: dict[bytes, bytes] = client.hgetall(keys.processes)
        (worker,) = (name for name, entry in register.items() if decode_entry(entry).pid == pid)
        found: dict[str, list[str]] = {}
        for lane in keys.lanes.values():
            for one in client.xpending_range(lane, WORKERS_GROUP, "-", "+", 1000, worker):
                ((_, fields),) = client.xrange(lane, one["message_id"], one["message_id"])
                request_id = fields[b"r"].decode()
                state = client.hgetall(keys.job(request_id))
                found[request_id] = [name[2:].decode() for name in state if name.startswith(b"a:")]
    return found


async def test_a_worker_stopped_past_its_lease_neither_posts_nor_settles(gateway: StartedGateway):
    ready, books = gateway.ready, Books(gateway.ready)
    until_still(ready)
    since, load = books.mark(), Load(ready.base_url, ready.api_key)
    words = " ".join(f"w{n:03d}" for n in range(120))
    streams = [True, False] * 20
    random.Random(SEED).shuffle(streams)  # workers claim in turn: each must get of both
    wanted = [plain(f"n{n} {words}", number=n, stream=stream) for n, stream in enumerate(streams)]
    stopped = ready.pids["worker"][0]
    async with pace(gateway, first_token_ms=20, tokens_per_second=40), asyncio.TaskGroup() as all_:
        all_.create_task(load.run(wanted, per_second=100.0))
        await asyncio.sleep(1.5)
        os.kill(stopped, signal.SIGSTOP)
        try:
            # What it had sent is carried out by then, and no lease has run out: the last
            # heartbeat is at most a third of one old.
            await asyncio.sleep(0.2 * LEASE_SECONDS)
            stuck = stuck_attempts(ready.valkey_url, stopped)
            await asyncio.sleep(3 * LEASE_SECONDS)
        finally:
            os.kill(stopped, signal.SIGCONT)
    rested = until_still(ready)
    verdict, rows = books.reconcile(since), {row.row_id: row for row in books.rows(since)}
    mine = [rows[row_id] for attempts in stuck.values() for row_id in attempts]
    print(
        f"\nstopped with {len(stuck)} of {len(wanted)} jobs: clients {dict(load.counts())}"
        f"\n  ledger: {verdict}\n  at rest after {rested:.1f} s"
    )
    assert len(mine) >= 5, "the worker that was stopped held too little to show anything"
    assert {row.status for row in mine} == {"lost"}
    assert load.of(Outcome.WRONG) == []
    assert {*load.counts()} <= {Outcome.COMPLETE, Outcome.ERROR}
    # Whole answers were not begun, so another worker gave them; begun streams ended as errors.
    assert {result.order.stream for result in load.of(Outcome.ERROR)} == {True}
    assert {result.detail for result in load.of(Outcome.ERROR)} == {"stream stream_interrupted"}
    assert verdict.is_clean, f"{verdict}\n{gateway.logs()}"
    assert gateway.ready.pids["worker"].count(stopped) == 1


async def roll_all(gateway: StartedGateway) -> None:
    """SIGHUP: the supervisor starts the next before it lets the former one drain."""
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)


async def end_one_by_one(gateway: StartedGateway) -> None:
    """SIGTERM for each api and worker process, as an operator would who replaces them by hand."""
    for role in ("api", "worker"):
        for pid in gateway.ready.pids[role]:
            os.kill(pid, signal.SIGTERM)
            await eventually(partial(is_replaced, gateway, role, pid), MEND_SECONDS)


def is_replaced(gateway: StartedGateway, role: str, pid: int) -> bool:
    return not runs(pid) and len(gateway.ready.pids[role]) == 2


@pytest.mark.parametrize("roll", [roll_all, end_one_by_one])
async def test_a_rolling_restart_fails_no_request(
    gateway: StartedGateway, roll: Callable[[StartedGateway], Awaitable[None]]
):
    ready, books = gateway.ready, Books(gateway.ready)
    until_still(ready)
    since, load = books.mark(), Load(ready.base_url, ready.api_key)
    before = {pid for role in ("api", "worker") for pid in ready.pids[role]}
    others = [ready.pids[role] for role in ("metering", "background")]
    rng = random.Random(SEED)
    rolled = asyncio.Event()

    async def ask_until_rolled() -> None:
        """At least once past the end of the roll."""
        while not rolled.is_set():
            some = orders(60, rng, cancelled=0, faults=0, mended=0)
            await load.run(some, per_second=PER_SECOND)

    async def roll_over() -> None:
        await asyncio.sleep(1)
        await roll(gateway)
        await eventually(are_all_new, 2 * MEND_SECONDS)
        rolled.set()

    def are_all_new() -> bool:
        now = gateway.ready.pids
        return all(
            len(now[role]) == 2 and before.isdisjoint(now[role]) for role in ("api", "worker")
        )

    async with pace(gateway, first_token_ms=20, tokens_per_second=60), asyncio.TaskGroup() as all_:
        all_.create_task(ask_until_rolled())
        all_.create_task(roll_over())
    until_still(ready)
    verdict = books.reconcile(since)
    print(f"\n{roll.__name__}: clients {dict(load.counts())}\n  ledger: {verdict}")
    assert [result for result in load.results if result.outcome != Outcome.COMPLETE] == []
    assert [gateway.ready.pids[role] for role in ("metering", "background")] == others
    assert verdict.is_clean, f"{verdict}\n{gateway.logs()}"
    assert verdict.statuses["lost"] == 0
