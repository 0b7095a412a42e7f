"""The hourly sums are made right again, and the hours that were wrong are told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import commands
from shared.clickhouse.backfill import Backfill, Recomputed
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.retention import keep_rows
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.usage_filter import END_OF_TIME, EPOCH
from tests.spend_rows import ADMITTED, spend_row

HOUR = ADMITTED.replace(minute=0, second=0, microsecond=0)
ONE_HOUR = timedelta(hours=1)
HOURS = 5
LINES = "SELECT * EXCEPT computed_at FROM {} FINAL WHERE attempts > 0 ORDER BY ALL"
TABLES = ("usage_hourly", "usage_hourly_tags")


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    """Five hours of rows, summed up."""
    await migrate(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    rows = [
        spend_row(at, created_at=HOUR + ONE_HOUR * (at % HOURS), model=f"model-{at % 3}")
        for at in range(60)
    ]
    await SpendTable(store).insert(rows, token="rows")
    await Rollups(store).refresh(most=100)
    yield store
    await store.close()


async def lines(store: ClickHouse) -> list[object]:
    return [await store.query(LINES.format(table)) for table in TABLES]


async def backfill(
    store: ClickHouse,
    since: datetime = EPOCH,
    until: datetime = END_OF_TIME,
    *,
    keep_days: int = 0,
) -> list[Recomputed]:
    return [one async for one in Backfill(store).run(since, until, keep_days=keep_days)]


async def spoil(store: ClickHouse) -> None:
    """One hour's lines are gone, another's cost is wrong, a third's model and tag are others."""
    gone, dear, other = (f"toDateTime({int((HOUR + ONE_HOUR * n).timestamp())})" for n in range(3))
    sync = "SETTINGS mutations_sync = 2"
    for table in TABLES:
        await store.command(f"ALTER TABLE {table} DELETE WHERE hour = {gone} {sync}")
    await store.command(
        "INSERT INTO usage_hourly SELECT * REPLACE (cost_usd + 1 AS cost_usd,"  # noqa: S608
        f" requests + 1 AS requests) FROM usage_hourly FINAL WHERE hour = {dear}"
    )
    for table, column in zip(TABLES, ("model", "value"), strict=True):
        await store.command(f"CREATE TABLE moved AS {table}")
        await store.command(
            f"INSERT INTO moved SELECT * REPLACE (concat('moved-', {column}) AS {column}) FROM {table} FINAL"  # noqa: S608
            f" WHERE hour = {other}"
        )
        await store.command(f"ALTER TABLE {table} DELETE WHERE hour = {other} {sync}")
        await store.command(f"INSERT INTO {table} SELECT * FROM moved")  # noqa: S608
        await store.command("DROP TABLE moved")


async def test_sums_that_were_deleted_or_changed_are_as_before(store: ClickHouse) -> None:
    right = await lines(store)
    await spoil(store)
    assert await lines(store) != right
    done = await backfill(store)
    assert await lines(store) == right
    assert [one.hour for one in done] == [HOUR + ONE_HOUR * n for n in range(HOURS)]
    assert [one.has_changed for one in done] == [True, True, True, False, False]
    missing, dear, moved = done[:3]
    assert (missing.before.requests, missing.after.requests) == (0, 12)
    assert dear.before.cost_usd > dear.after.cost_usd + 1
    assert moved.before[:2] == moved.after[:2]
    assert not any(one.has_changed for one in await backfill(store))


async def test_only_hours_that_the_time_touches_are_recomputed(store: ClickHouse) -> None:
    half = timedelta(minutes=30)
    done = await backfill(store, HOUR + ONE_HOUR + half, HOUR + 2 * ONE_HOUR + half)
    assert [one.hour for one in done] == [HOUR + ONE_HOUR, HOUR + 2 * ONE_HOUR]
    assert await backfill(store, HOUR + 99 * ONE_HOUR) == []


async def test_hours_whose_rows_are_forgotten_keep_their_sums(store: ClickHouse) -> None:
    right = await lines(store)
    assert await backfill(store, keep_days=1) == []
    assert await keep_rows(store, days=1)
    await store.command("OPTIMIZE TABLE spend_rows FINAL")
    assert await SpendTable(store).count() == 0
    assert await backfill(store, keep_days=1) == []
    assert await backfill(store, keep_days=0) == []
    assert await lines(store) == right


async def test_the_command_prints_what_changed(
    store: ClickHouse,
    clickhouse_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, url in (("CLICKHOUSE", clickhouse_url), ("VALKEY", "redis://x"), ("DATABASE", "x")):
        monkeypatch.setenv(f"{name}_URL", url)
    await spoil(store)

    def run(*options: str) -> tuple[int, list[str]]:
        words = ["usage", "backfill", f"--data-dir={tmp_path}", *options]
        found = CliRunner().invoke(commands(["usage"]), words)
        return found.exit_code, found.output.splitlines()

    until = (HOUR + 3 * ONE_HOUR).astimezone(UTC).isoformat()
    code, said = await asyncio.to_thread(run, "--from", "2026-03-04T05:00:00", "--to", until)
    assert (code, len(said)) == (0, 4)
    assert said[0].startswith("2026-03-04T05:00Z  requests 0 -> 12, cost 0 -> 0.0000003")
    assert said[1].startswith("2026-03-04T06:00Z  requests ")
    assert said[2] == "2026-03-04T07:00Z  the same totals, in other lines"
    assert said[3] == "recomputed 3 hours, 3 changed"
    assert await asyncio.to_thread(run) == (0, ["recomputed 5 hours, 0 changed"])
    code, said = await asyncio.to_thread(run, "--from", "yesterday")
    assert code == 1
    assert said[0].startswith("gateway: from: ")
