"""ClickHouse is away for long: rows wait, everybody is told, admission stops at the bound, nothing is dropped."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from shared.catalog import Catalog
from tests.e2e.ledger import Books
from tests.e2e.load import Load, Order, Outcome
from tests.e2e.started import StartedGateway, until
from tests.e2e.stillness import until_still

BUILT_IN = (files("shared") / "gateway.toml").read_text()
LANE_CAPACITY = 10
BOUND = 60
"""Rows that may wait; here each request is one."""
TOLD_SECONDS = 10.0


def small_backlog() -> str:
    """The default catalog, with a backlog at which admission stops at BOUND rows."""

    def with_most(rows: int) -> str:
        return f"{BUILT_IN}\n[queue]\nlane_capacity = {LANE_CAPACITY}\nmax_spend_backlog = {rows}\n"

    most = 100_000
    reserve = most - Catalog.from_toml(with_most(most)).queue.admit_below_backlog
    return with_most(reserve + BOUND)


@pytest.fixture
def bounded(gateway: StartedGateway, tmp_path: Path) -> Iterator[StartedGateway]:
    catalog = tmp_path / "small.toml"
    catalog.write_text(small_backlog())
    applied = gateway.run("config", "apply", str(catalog))
    assert applied.returncode == 0, applied.stderr
    wanted = applied.stdout.split()[0]
    looks = [lambda: httpx.get(f"{gateway.ready.base_url}/status").json()["config_hash"] == wanted]
    for look in looks * 12:  # each on a connection of its own, so that both API processes are asked
        until(look, TOLD_SECONDS)
    yield gateway
    assert gateway.run("config", "apply").returncode == 0


@contextmanager
def clickhouse_away(gateway: StartedGateway) -> Iterator[None]:
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(gateway.ready.pids["clickhouse"][0], signal.SIGKILL)
        yield
    finally:
        gateway.process.send_signal(signal.SIGCONT)


def backlog(gateway: StartedGateway) -> int:
    """As the gateway's own metric tells it."""
    text = httpx.get(f"{gateway.ready.base_url}/metrics", timeout=10).text
    found = re.findall(r"^gateway_spend_backlog\{.*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


async def ask_until_refused(load: Load) -> str:
    """One after another; how the first refusal reads."""
    for number in range(2 * BOUND):
        order = Order(number=number, model="sim_echo", text=f"request {number}", stream=False)
        result = await load.send(order)
        if result.outcome != Outcome.COMPLETE:
            return result.detail
        load.results.append(result)
    return "never refused"


def test_without_clickhouse_rows_wait_and_admission_stops_at_the_bound(
    bounded: StartedGateway,
) -> None:
    ready, books = bounded.ready, Books(bounded.ready)
    until_still(ready)
    since, load = books.mark(), Load(ready.base_url, ready.api_key)
    with clickhouse_away(bounded):
        refusal = asyncio.run(ask_until_refused(load))
        health = httpx.get(f"{ready.base_url}/health", timeout=10)
        readiness = httpx.get(f"{ready.base_url}/health/readiness", timeout=10)
        until(lambda: backlog(bounded) == BOUND, TOLD_SECONDS)
    assert (refusal, len(load.results)) == ("503 store_unavailable", BOUND)
    assert (health.status_code, health.json()["clickhouse"]) == (503, "error")
    assert readiness.status_code == 200
    until_still(ready)  # nothing waits, and nothing was set aside
    verdict = books.reconcile(since)
    assert verdict.is_clean, verdict
    assert (verdict.calls, verdict.rows) == (BOUND, BOUND)
    until(lambda: backlog(bounded) == 0, TOLD_SECONDS)
    again = Order(number=0, model="sim_echo", text="again", stream=False)
    assert asyncio.run(load.send(again)).outcome == Outcome.COMPLETE
