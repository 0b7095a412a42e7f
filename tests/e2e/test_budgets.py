"""Budgets under many clients at once: exactly what they allow, to the last nano-dollar."""

import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from tests.e2e.chaos import Killer, eventually, pace
from tests.e2e.payers import Manager, billed, held
from tests.e2e.spenders import Spenders
from tests.e2e.started import StartedGateway
from tests.e2e.stillness import until_still

BUILT_IN = (files("shared") / "gateway.toml").read_text()
CLIENTS = 800
PRICE = Decimal("0.001000001")
"""Of a request: what is held is what it costs, so a budget allows a whole number of them."""
MODELS = f"""
[models.metered]
providers = [{{ provider = "sim", upstream_model = "sim/echo" }}]
price = {{ request = {PRICE} }}

[models.by_token]
providers = [{{ provider = "sim", upstream_model = "sim/echo" }}]
price = {{ input = 3.0, output = 15.0 }}
max_output_tokens = 64
"""


@pytest.fixture(scope="module")
def crowd() -> Iterator[StartedGateway]:
    """Four API processes."""
    with tempfile.TemporaryDirectory(prefix="gateway-budgets-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        config = folder / "gateway.toml"
        config.write_text(BUILT_IN + MODELS)
        config.chmod(0o644)
        with StartedGateway(
            folder / "gateway",
            "--api=4",
            "--workers=2",
            f"--config={config}",
            environment={"GATEWAY_LEASE_SECONDS": "1"},
        ) as started:
            yield started


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


async def test_800_clients_of_four_processes_buy_exactly_what_a_new_users_budget_allows(
    crowd: StartedGateway,
) -> None:
    allowed, manager = 1500, Manager(crowd)
    key = manager.user("thrifty", allowed * PRICE)
    spenders = Spenders(crowd.ready, key, "metered")
    await spenders.run(CLIENTS, lambda: spenders.answers[403, "budget_exceeded"] > 2 * CLIENTS)
    until_still(crowd.ready)
    rows = await billed(crowd, "thrifty")
    print(f"\n{CLIENTS} clients: {dict(spenders.answers)}, spent {manager.spent('thrifty')}")
    assert set(spenders.answers) == {(200, ""), (403, "budget_exceeded")}
    assert spenders.bought == len(rows) == allowed
    assert sum(cost for _, cost in rows) == manager.spent("thrifty") == allowed * PRICE


async def test_each_window_of_a_budget_allows_exactly_its_own(crowd: StartedGateway) -> None:
    allowed, seconds, manager = 400, 3, Manager(crowd)
    key = manager.user("weekly", allowed * PRICE, seconds)
    began = manager.ask("GET", "/v1/users/weekly")["budget_started_at"]
    started = round(datetime.fromisoformat(began).timestamp(), 3)  # windows begin at a millisecond
    spenders = Spenders(crowd.ready, key, "metered")
    await spenders.run(CLIENTS, after(3.4 * seconds))
    until_still(crowd.ready)
    rows = await billed(crowd, "weekly")
    windows = Counter(int((at.timestamp() - started) // seconds) for at, _ in rows)
    print(f"\nwindows of {allowed}: {dict(windows)}, answers {dict(spenders.answers)}")
    assert set(spenders.answers) == {(200, ""), (403, "budget_exceeded")}
    assert len(rows) == spenders.bought
    assert [count for _, count in sorted(windows.items())][:3] == [allowed] * 3
    assert max(windows.values()) == allowed


async def test_what_is_held_and_not_used_can_be_spent_until_less_than_a_hold_is_left(
    crowd: StartedGateway,
) -> None:
    most, manager = Decimal("0.25"), Manager(crowd)
    key = manager.user("by-token", most)
    spenders = Spenders(crowd.ready, key, "by_token")
    await spenders.run(50, lambda: spenders.answers[403, "budget_exceeded"] > 2000)
    until_still(crowd.ready)
    rows = await billed(crowd, "by-token")
    total = sum(cost for _, cost in rows)
    hold = Decimal("0.0013")  # of 64 tokens of output and as many of input as the body has bytes
    print(f"\nspent {total} of {most} in {len(rows)} calls")
    assert manager.spent("by-token") == total <= most
    assert total > most - hold


async def test_kills_leave_no_hold_behind(crowd: StartedGateway) -> None:
    await leak(crowd, "killed", kills=6, seconds=7)


@pytest.mark.torture
async def test_fifty_kills_leave_no_hold_behind(crowd: StartedGateway) -> None:
    await leak(crowd, "killed-often", kills=50, seconds=75)


async def leak(crowd: StartedGateway, name: str, *, kills: int, seconds: float) -> None:
    """Kills api and worker processes while their requests run; then spends what is left."""
    allowed, manager = 30_000, Manager(crowd)
    key = manager.user(name, allowed * PRICE)
    spenders = Spenders(crowd.ready, key, "metered")
    killer = Killer(crowd, ("api", "worker"), random.Random(name))
    async with pace(crowd, first_token_ms=300), asyncio.TaskGroup() as group:
        group.create_task(spenders.run(100, after(seconds + 1)))
        await killer.run(kills, seconds)
        for pid in crowd.ready.pids["worker"]:
            os.kill(pid, signal.SIGKILL)
        mid_flight = held(crowd, name)
    assert mid_flight > 0, "or the kills would prove nothing"
    await eventually(lambda: held(crowd, name) == 0, 60)
    until_still(crowd.ready)
    spent_by_now = sum(cost for _, cost in await billed(crowd, name))
    assert manager.spent(name) == spent_by_now
    print(f"\n{dict(killer.kills)} kills, {mid_flight} held at the last: {dict(spenders.answers)}")
    manager.limit(name, spent_by_now + 500 * PRICE)
    after_kills = Spenders(crowd.ready, key, "metered")
    await after_kills.run(50, lambda: after_kills.answers[403, "budget_exceeded"] > 100)
    until_still(crowd.ready)
    assert after_kills.bought == 500
    assert manager.spent(name) == spent_by_now + 500 * PRICE
    assert sum(cost for _, cost in await billed(crowd, name)) == manager.spent(name)
