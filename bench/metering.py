"""`python -m bench.metering`: how many spend rows a second one metering process moves, and what they cost.

A stream is filled as workers fill it, then the real process is started on it. Counted is from its
first acknowledged batch to the last: neither its start nor the first insert is in the figures.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import redis
from msgspec.structs import replace

from bench.instruments import BenchFailed
from bench.micro import a_row
from bench.process import Roles, cpu_by_role
from bench.stores import running_stores
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.spend import SpendTable
from shared.embedded.servers import ServerUrls
from shared.ids import new_id
from shared.price import Price
from shared.spend import SpendRow, encode_row
from shared.usage import Usage
from shared.valkey.keys import ShardKeys

KEYS = ShardKeys(0)
ROWS_PER_ENTRY = 8
"""One settlement writes the rows of all jobs that ended meanwhile: under load, of several."""
ENTRIES_AT_ONCE = 500
POLL_SECONDS = 0.01
LIMIT_SECONDS = 600.0
STOP_SECONDS = 30.0
USERS, KEYS_PER_USER, MODELS, PROVIDERS = 1000, 2, 20, 5


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of the run."""

    at: float
    rows_left: int
    cpu: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metering", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows: int = parser.parse_args().rows
    with running_stores("valkey", "clickhouse") as servers:
        urls = servers.urls
        asyncio.run(migrate(urls.clickhouse_url))
        with redis.Redis.from_url(urls.valkey_url) as valkey:
            total = fill(valkey, rows)
            with running_metering(urls) as pid:
                pids = servers.pids
                roles = {"metering": [pid]} | {str(name): [pids[name]] for name in pids}
                began, ended = (sample(valkey, roles, below) for below in (total, 1))
        stored = asyncio.run(count(urls.clickhouse_url))
    if stored != total:
        raise BenchFailed(f"{stored} rows were stored of {total}")
    print_figures(began, ended)


def fill(valkey: redis.Redis, rows: int) -> int:
    """How many there are: entries are whole."""
    now = datetime.now(UTC)
    entries = max(1, rows // ROWS_PER_ENTRY)
    for first in range(0, entries, ENTRIES_AT_ONCE):
        with valkey.pipeline(transaction=False) as many:
            add: Callable[..., object] = many.execute_command  # xadd() takes a dict: each name once
            for entry in range(first, min(first + ENTRIES_AT_ONCE, entries)):
                words: list[bytes] = []
                for number in range(entry * ROWS_PER_ENTRY, (entry + 1) * ROWS_PER_ENTRY):
                    words += (b"r", encode_row(realistic_row(number, now)))
                add("XADD", KEYS.spend, "*", *words)
            many.execute()
    valkey.set(KEYS.spend_rows, entries * ROWS_PER_ENTRY)
    return entries * ROWS_PER_ENTRY


def realistic_row(number: int, now: datetime) -> SpendRow:
    """Of as many users, keys and models as a deployment has; each row's ids are its own."""
    user, at = number % USERS, now - timedelta(microseconds=number * 300)
    return replace(
        a_row(),
        user=f"user-{user}",
        key_id=f"key-{user}-{number % KEYS_PER_USER}",
        client_request_id=new_id(),
        model=f"model-{number % MODELS}",
        provider=f"provider-{number % PROVIDERS}",
        upstream_model=f"vendor/model-{number % MODELS}",
        tier=("", "TEE", "ZDR")[number % 3],
        streamed=number % 2 == 0,
        finish_reason="stop",
        usage=Usage(input_tokens=100 + number % 900, output_tokens=50 + number % 500),
        price=Price(Decimal("0.5"), Decimal("1.5"), Decimal("0.25")),
        cost_usd=Decimal(number % 1_000_000).scaleb(-9),
        tags={"team": f"team-{number % 10}", "feature": "search"},
        created_at=at,
        started_at=at,
        ended_at=at + timedelta(seconds=1),
        ttft_ms=120.5,
        queue_ms=0.75,
        upstream_ms=980.25,
        overhead_ms=1.5,
    )


@contextmanager
def running_metering(urls: ServerUrls) -> Iterator[int]:
    """Its process id; killed on leaving, if it does not end by itself."""
    environment = {
        **os.environ,
        "VALKEY_URL": urls.valkey_url,
        "CLICKHOUSE_URL": urls.clickhouse_url,
        "GATEWAY_LOG_LEVEL": "error",
    }
    child = subprocess.Popen([sys.executable, "-m", "workers.metering"], env=environment)
    try:
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def sample(valkey: redis.Redis, roles: Roles, below: int) -> Sample:
    """Waits until fewer than `below` rows are left."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        found: Any = valkey.get(KEYS.spend_rows)
        left = int(found or 0)
        if left < below:
            return Sample(time.monotonic(), left, cpu_by_role(roles))
        if time.monotonic() > deadline:
            raise BenchFailed(f"{left} rows were left after {LIMIT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


async def count(url: str) -> int:
    store = ClickHouse(url)
    try:
        return await SpendTable(store).count()
    finally:
        await store.close()


def print_figures(began: Sample, ended: Sample) -> None:
    rows, wall = began.rows_left - ended.rows_left, ended.at - began.at
    print(
        f"| {rows:,} rows in {wall:.1f} s: {rows / wall:,.0f} rows/s | µs of CPU per row | rows/s per core |"
    )
    print("|---|---|---|")
    for role in ended.cpu:
        seconds = ended.cpu[role] - began.cpu[role]
        print(f"| {role} | {seconds / rows * 1e6:.1f} | {rows / max(seconds, 1e-9):,.0f} |")


if __name__ == "__main__":
    main()
