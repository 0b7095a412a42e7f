"""Closing the connection stops a request wherever it is, and the provider sees it at once."""

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import redis

from shared.job import LANES
from shared.valkey.keys import ShardKeys
from tests.e2e.agreement import Row
from tests.e2e.chaos import pace
from tests.e2e.ledger import Books
from tests.e2e.load import Order
from tests.e2e.started import StartedGateway, until
from tests.e2e.stillness import until_still
from workers.simulator.ledger import Call

CANCELS = 35
"""Of each of three stages: a hundred in all, so that the 99th percentile is one of them."""
AT_ONCE = 5
BOUND_MS = 250.0
SEED = 6
QUEUED = 12
SECONDS = 20.0


class Client:
    """Sends requests it does not wait for, each under a name of its own."""

    def __init__(self, gateway: StartedGateway) -> None:
        parts = urlsplit(gateway.ready.base_url)
        self._host, self._port = parts.hostname, parts.port
        self._api_key = gateway.ready.api_key

    async def open(
        self, name: str, order: Order
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        body = order.body()
        writer.write(
            (
                "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
                f"authorization: Bearer {self._api_key}\r\nx-request-id: {name}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            ).encode()
            + body
        )
        return reader, writer


def order(model: str, *, stream: bool) -> Order:
    text = " ".join(f"w{n:03d}" for n in range(50))
    return Order(number=0, model=model, text=text, stream=stream)


async def before_the_first_byte(client: Client, name: str, rng: random.Random) -> float:
    """A stream whose provider has not said anything yet."""
    _, writer = await client.open(name, order("sim_fault_slow_first_byte", stream=True))
    await asyncio.sleep(rng.uniform(0.2, 0.6))
    return close(writer)


async def amid_the_stream(client: Client, name: str, rng: random.Random) -> float:
    """A stream that would never end."""
    reader, writer = await client.open(name, order("sim_fault_endless", stream=True))
    async with asyncio.timeout(SECONDS):
        for _ in range(rng.randint(5, 60)):
            await reader.readuntil(b"\n\n")
    return close(writer)


async def in_a_whole_answer(client: Client, name: str, rng: random.Random) -> float:
    """A call without a stream: nobody has sent the client a byte."""
    _, writer = await client.open(name, order("sim_fault_slow_first_byte", stream=False))
    await asyncio.sleep(rng.uniform(0.2, 0.6))
    return close(writer)


def close(writer: asyncio.StreamWriter) -> float:
    at = time.time()
    writer.transport.abort()
    return at


def by_name(rows: list[Row], calls: list[Call]) -> dict[str, list[tuple[Row, Call]]]:
    """The attempts of each request, under the name its client gave it."""
    served = {call.client_request_id: call for call in calls}
    found: dict[str, list[tuple[Row, Call]]] = {}
    for row in rows:
        found.setdefault(row.client_request_id, []).append((row, served[row.row_id]))
    return found


async def test_the_provider_sees_the_connection_close_within_250_ms(gateway: StartedGateway):
    ready, books, client = gateway.ready, Books(gateway.ready), Client(gateway)
    until_still(ready)
    since, rng = books.mark(), random.Random(SEED)
    stages = (before_the_first_byte, amid_the_stream, in_a_whole_answer)
    names = [(stage, f"{stage.__name__}-{n}") for n in range(CANCELS) for stage in stages]
    rng.shuffle(names)
    slots, closed = asyncio.Semaphore(AT_ONCE), dict[str, float]()

    async def one(stage, name: str) -> None:
        async with slots:
            closed[name] = await stage(client, name, rng)

    async with pace(gateway, slow_first_byte_seconds=20), asyncio.TaskGroup() as group:
        for stage, name in names:
            group.create_task(one(stage, name))
    rested = until_still(ready)
    verdict, calls = books.reconcile(since), books.calls(since)
    found = by_name(books.rows(since), calls)
    assert {name: len(attempts) for name, attempts in found.items()} == dict.fromkeys(closed, 1)
    took: dict[str, list[float]] = {stage.__name__: [] for stage in stages}
    for name, ((row, call),) in found.items():
        assert call.status == "aborted", (row, call)
        assert call.ended_at is not None
        took[name.partition("-")[0]].append((call.ended_at - closed[name]) * 1000)
        assert (row.status, row.error_code) == ("cancelled", "client_disconnected")
        assert row.usage_source == "estimated"
        assert (row.output_tokens > 0) == name.startswith("amid_the_stream"), row
    every = sorted(ms for some in took.values() for ms in some)
    p99 = every[round(len(every) * 0.99) - 1]
    print(
        f"\n{len(every)} cancels: p50 {statistics.median(every):.1f} ms, p99 {p99:.1f} ms, "
        f"most {every[-1]:.1f} ms; "
        + ", ".join(f"{name} p50 {statistics.median(some):.1f}" for name, some in took.items())
        + f"\n  ledger: {verdict}\n  at rest after {rested:.1f} s"
    )
    assert every[0] > 0, "a clock that runs backwards measures nothing"
    assert p99 < BOUND_MS
    assert verdict.is_clean, verdict


@asynccontextmanager
async def stopped_workers(gateway: StartedGateway) -> AsyncIterator[None]:
    pids = gateway.ready.pids["worker"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def queued(url: str) -> int:
    with redis.Redis.from_url(url) as store:
        return sum(store.xlen(ShardKeys(0).lane(lane)) for lane in LANES)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_cancelled_in_its_lane_is_removed_and_costs_nothing(
    gateway: StartedGateway, stream: bool
):
    ready, books, client = gateway.ready, Books(gateway.ready), Client(gateway)
    until_still(ready)
    since = books.mark()
    async with stopped_workers(gateway):
        opened = [
            await client.open(f"queued-{n}", order("sim_echo", stream=stream))
            for n in range(QUEUED)
        ]
        until(lambda: queued(ready.valkey_url) == QUEUED, SECONDS, gateway.logs)
        began = time.monotonic()
        for _, writer in opened:
            writer.transport.abort()
        await asyncio.to_thread(until, lambda: queued(ready.valkey_url) == 0, SECONDS, gateway.logs)
        took_ms = (time.monotonic() - began) * 1000
    until_still(ready)
    print(f"\n{QUEUED} queued requests removed within {took_ms:.0f} ms of their cancel")
    assert books.rows(since) == []
    assert books.calls(since) == []
    # What was removed from under a worker must not have made it stop working.
    async with asyncio.timeout(SECONDS):
        reader, writer = await client.open("afterwards", order("sim_echo", stream=False))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
