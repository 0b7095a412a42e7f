"""`python -m bench usage`: how long a page of the ledger takes, on as many generated rows as asked for.

The ClickHouse engine is started from its wheel, filled, and asked through the gateway's own reader.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.usage import UsageTable
from shared.clickhouse.usage_filter import EPOCH, UsageFilter
from shared.clickhouse.usage_summary import UsageSummary
from shared.embedded.servers import EmbeddedServers, GivenUrls

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_AT_ONCE = 2_000_000
"""Of one INSERT: takes a few seconds, and is far from a call's bound."""
ROUNDS = 9

SETTLED = (
    "INSERT INTO usage_rolled_up (until) SELECT max(inserted_at) + toIntervalSecond(150)"
    " FROM spend_rows"
)
"""As if all rows had come long before the last round."""

FILL = """
INSERT INTO spend_rows (
    row_id, request_id, tenant, user, key_id, endpoint, model, provider, tier, lane, attempt,
    status, billed, input_tokens, output_tokens, price_input, price_output, cost_usd, tags,
    created_at, started_at, ended_at
)
SELECT
    reinterpretAsUUID(sipHash128(number)), reinterpretAsUUID(sipHash128(number, 1)), 'default',
    concat('user-', toString(cityHash64(number) % 1000)),
    concat('key-', toString(cityHash64(number) % 2000)), 'chat.completions',
    concat('model-', toString(number % 20)), concat('provider-', toString(number % 5)),
    ['', 'TEE', 'ZDR'][number % 3 + 1], 'default', 1,
    if(cityHash64(number, 2) % 50 = 0, 'failed', 'completed') AS is, is = 'completed',
    100, 200, 1, 2, 0.0005, map('team', toString(number % 10)),
    fromUnixTimestamp64Micro(
        {begin:Int64} + toInt64(intDiv(number * {micros:UInt64}, {rows:UInt64})), 'UTC'
    ) AS at, at, at
FROM numbers({first:UInt64}, {count:UInt64})
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench usage", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30, help="how long the rows are spread over")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        Path(name).chmod(0o711)
        given = GivenUrls(valkey="unused", postgres="unused")
        servers = EmbeddedServers(Path(name), given=given, fsync=False)
        servers.start()
        try:
            asyncio.run(_measure(servers.urls.clickhouse_url, options.rows, options.days))
        finally:
            servers.stop()
    return 0


async def _measure(url: str, rows: int, days: int) -> None:
    await migrate(url)
    store = ClickHouse(url)
    try:
        await _fill(store, rows, timedelta(days=days))
        print(f"| {rows:,} rows over {days} days | median ms | slowest ms |\n|---|---|---|")
        await _ask(_pages(UsageTable(store), days))
        rollups = Rollups(store)
        hours = days * 24
        took = await _milliseconds(partial(rollups.refresh, most=hours))
        print(f"| summing up an hour (mean of {hours}) | {took / hours:.1f} | |", flush=True)
        await store.command(SETTLED)
        await _ask(_sums(UsageSummary(store), days))
    finally:
        await store.close()


async def _ask(questions: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
    for name, ask in questions.items():
        times = [await _milliseconds(ask) for _ in range(ROUNDS + 1)][1:]  # the first is cold
        print(f"| {name} | {statistics.median(times):.1f} | {max(times):.1f} |", flush=True)


async def _fill(store: ClickHouse, rows: int, spread: timedelta) -> None:
    for first in range(0, rows, ROWS_AT_ONCE):
        await store.command(
            FILL,
            {
                "begin": (BEGIN - EPOCH) // timedelta(microseconds=1),
                "micros": spread // timedelta(microseconds=1),
                "rows": rows,
                "first": first,
                "count": min(ROWS_AT_ONCE, rows - first),
            },
        )


def _pages(table: UsageTable, days: int) -> dict[str, Callable[[], Awaitable[object]]]:
    middle = BEGIN + timedelta(days=days / 2)
    pages: dict[str, UsageFilter] = {
        "newest page": UsageFilter(),
        "page in the middle": UsageFilter(until=middle),
        "one of 1,000 users": UsageFilter(user="user-7"),
        "errors of a model": UsageFilter(model="model-7", status="error"),
        "a tag": UsageFilter(tag=("team", "3")),
        "a user that is not there": UsageFilter(user="nobody"),
    }
    return {name: partial(table.page, wanted, limit=100) for name, wanted in pages.items()}


def _sums(summary: UsageSummary, days: int) -> dict[str, Callable[[], Awaitable[object]]]:
    last_day = UsageFilter(since=BEGIN + timedelta(days=days - 1, minutes=20))
    asked: dict[str, tuple[UsageFilter, str]] = {
        "sums by model": (UsageFilter(), "model"),
        "sums by user": (UsageFilter(), "user"),
        "sums by day of one user": (UsageFilter(user="user-7"), "day"),
        "sums by tag": (UsageFilter(), "tag:team"),
        "sums by hour of the last day": (last_day, "hour"),
    }
    return {
        name: partial(summary.lines, wanted, by=by, limit=1000)
        for name, (wanted, by) in asked.items()
    }


async def _milliseconds(ask: Callable[[], Awaitable[object]]) -> float:
    began = perf_counter()
    await ask()
    return (perf_counter() - began) * 1000
