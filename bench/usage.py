"""`python -m bench usage`: how long readers of the ledger take, on as many generated rows as asked for.

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

from bench import scanner
from bench.process import Roles, cpu_by_role
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.scanner import ScannerTable
from shared.clickhouse.scanner_statistics import ScannerStatistics
from shared.clickhouse.usage import UsageTable
from shared.clickhouse.usage_filter import EPOCH, UsageFilter
from shared.clickhouse.usage_summary import UsageSummary
from shared.embedded.servers import EmbeddedServers, GivenUrls

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
    row_id, request_id, tenant, user, key_id, endpoint, model, provider, upstream_model, tier, lane,
    attempt, streamed, status, billed, input_tokens, output_tokens, price_input, price_output,
    cost_usd, tags, created_at, started_at, ended_at, ttft_ms, upstream_ms
)
WITH
    {begin:Int64} + toInt64(number * {step:UInt64}) AS micros,
    leftPad(lower(hex(toUInt64(intDiv(micros, 1000)))), 12, '0') AS time,
    lower(hex(sipHash128(number, 1))) AS rest,
    attempt < length(attempts) OR cityHash64(number, 2) % 50 = 0 AS has_failed,
    concat('model-', toString(number % 20)) AS name
SELECT
    reinterpretAsUUID(sipHash128(number, attempt, 2)),
    toUUID(concat(substr(time, 1, 8), '-', substr(time, 9), '-7', substr(rest, 1, 3), '-8',
        substr(rest, 4, 3), '-', substr(rest, 7, 12))),
    'default',
    concat('user-', toString(cityHash64(number) % 1000)),
    concat('key-', toString(cityHash64(number) % 2000)), 'chat.completions',
    name, concat('provider-', toString(number % 5)),
    concat(['openai', 'Qwen', 'deepseek-ai', 'zai-org', 'anthropic'][number % 5 + 1], '/', name),
    ['', 'TEE', 'ZDR'][number % 20 % 3 + 1], 'default', attempt, number % 2 = 0,
    multiIf(has_failed, 'failed', cityHash64(number, 3) % 100 = 0, 'cancelled', 'completed'),
    NOT has_failed, 100, 200, 1, 2, if(has_failed, 0, 0.0005),
    map('team', toString(number % 10), 'application', concat('app-', toString(cityHash64(number, 4) % 30))),
    fromUnixTimestamp64Micro(micros, 'UTC') AS at, at + toIntervalMillisecond(attempt),
    at + toIntervalMillisecond(300 + cityHash64(number, 5) % 9000),
    100 + cityHash64(number, 6) % 900, 300 + cityHash64(number, 5) % 9000
FROM (
    SELECT number, if(number % 33 = 0, [1, 2], [1]) AS attempts
    FROM numbers({first:UInt64}, {count:UInt64})
) ARRAY JOIN attempts AS attempt
"""
"""Every thirty-third request is tried twice. What is asked for together is independent of one
another."""


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
            engine = {"clickhouse": [servers.pids["clickhouse"]]}
            asyncio.run(_measure(servers.urls.clickhouse_url, engine, options.rows, options.days))
        finally:
            servers.stop()
    return 0


async def _measure(url: str, engine: Roles, rows: int, days: int) -> None:
    await migrate(url)
    store = ClickHouse(url)
    # The last ones are of now, as the Scanner's windows end.
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    begin = end - timedelta(days=days)
    try:
        await _fill(store, rows, begin, end)
        print(
            f"| {rows:,} rows over {days} days | median ms | slowest ms | CPU ms |\n|---|---|---|---|"
        )
        ask = partial(_ask, engine)
        await ask(_pages(UsageTable(store), begin, end))
        await ask(scanner.pages(ScannerTable(store)))
        await ask(await scanner.by_id(ScannerTable(store)))
        rollups = Rollups(store)
        hours = days * 24
        took = await _milliseconds(partial(rollups.refresh, most=hours))
        print(f"| summing up an hour (mean of {hours}) | {took / hours:.1f} | | |", flush=True)
        await store.command(SETTLED)
        await ask(_sums(UsageSummary(store), end))
        await ask(scanner.statistics(ScannerStatistics(store), end))
    finally:
        await store.close()


async def _ask(engine: Roles, questions: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
    """The engine's CPU is a mean: times move with whatever else the machine does."""
    for name, ask in questions.items():
        await ask()  # cold
        began = cpu_by_role(engine)["clickhouse"]
        times = [await _milliseconds(ask) for _ in range(ROUNDS)]
        cpu = (cpu_by_role(engine)["clickhouse"] - began) / ROUNDS * 1000
        median, slowest = statistics.median(times), max(times)
        print(f"| {name} | {median:.1f} | {slowest:.1f} | {cpu:.0f} |", flush=True)


async def _fill(store: ClickHouse, rows: int, begin: datetime, end: datetime) -> None:
    step = (end - begin) // timedelta(microseconds=1) // rows
    for first in range(0, rows, ROWS_AT_ONCE):
        await store.command(
            FILL,
            {
                "begin": (begin - EPOCH) // timedelta(microseconds=1),
                "step": step,
                "first": first,
                "count": min(ROWS_AT_ONCE, rows - first),
            },
        )


def _pages(
    table: UsageTable, begin: datetime, end: datetime
) -> dict[str, Callable[[], Awaitable[object]]]:
    middle = begin + (end - begin) / 2
    pages: dict[str, UsageFilter] = {
        "newest page": UsageFilter(),
        "page in the middle": UsageFilter(until=middle),
        "one of 1,000 users": UsageFilter(user="user-7"),
        "errors of a model": UsageFilter(model="model-7", status="error"),
        "a tag": UsageFilter(tag=("team", "3")),
        "a user that is not there": UsageFilter(user="nobody"),
    }
    return {name: partial(table.page, wanted, limit=100) for name, wanted in pages.items()}


def _sums(summary: UsageSummary, end: datetime) -> dict[str, Callable[[], Awaitable[object]]]:
    last_day = UsageFilter(since=end - timedelta(days=1, minutes=-20))
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
