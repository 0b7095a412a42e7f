"""The Scanner's statistics on a real ClickHouse: what its rows add up to, whatever came late or twice."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.clickhouse import rollups as rolling
from shared.clickhouse import scanner_statistics
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.scanner_statistics import Quantiles, ScannerStatistics, Window
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.usage_filter import EPOCH
from shared.spend import SpendRow
from shared.usage import Usage
from tests.spend_rows import ADMITTED, id_at, spend_row

WINDOWS: tuple[Window, ...] = ("24h", "30d")
MANY = 1_000
NOW = ADMITTED + timedelta(minutes=5)
NEAR = 0.011


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "SETTLING", timedelta(0))


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    await migrate(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    # The clock of these tests is of months ago, so minutes would be forgotten.
    await store.command("SYSTEM STOP TTL MERGES scanner_sums")
    yield store
    await store.close()


@pytest.fixture
def spend(store: ClickHouse) -> SpendTable:
    return SpendTable(store)


@pytest.fixture
def rollups(store: ClickHouse) -> Rollups:
    return Rollups(store)


@pytest.fixture
def statistics(store: ClickHouse) -> ScannerStatistics:
    return ScannerStatistics(store)


def request(ago: timedelta = timedelta(0), *, took_ms: float = 1000, **changes: Any) -> SpendRow:
    created_at = ADMITTED - ago
    usual: dict[str, Any] = {
        "request_id": id_at(created_at), "created_at": created_at, "billed": True, "variant": "",
        "attempt": 1, "usage": Usage(input_tokens=10, output_tokens=2),
        "ended_at": created_at + timedelta(milliseconds=took_ms), "cost_usd": Decimal("0.25"),
    }  # fmt: skip
    return spend_row(**usual | changes)


async def test_without_a_round_there_is_nothing_and_it_says_so(
    statistics: ScannerStatistics,
) -> None:
    for window in WINDOWS:
        found = await statistics.read(window, now=NOW)
        assert (found.total, found.active_models, found.models) == (None, 0, [])
        assert found.as_of <= EPOCH


@pytest.mark.parametrize("window", WINDOWS)
async def test_requests_add_up_in_all_and_by_model(
    spend: SpendTable, rollups: Rollups, statistics: ScannerStatistics, window: Window
) -> None:
    rows = [
        request(timedelta(minutes=at), took_ms=at + 1, ttft_ms=float(at + 1), model=f"m{at % 2}",
                provider=f"p{at % 3}", upstream_model=f"maker{at % 2}/m")
        for at in range(200)
    ]  # fmt: skip
    others = [
        request(status="failed", billed=False, cost_usd=Decimal(0), model="m0", provider="p0"),
        request(status="cancelled", model="m1"),
        request(status="lost", billed=False, cost_usd=Decimal(0), model="m1"),
    ]
    await spend.insert([*rows, *others], token="one")
    await spend.insert(rows, token="repeated")
    await rollups.refresh(most=MANY)
    found = await statistics.read(window, now=NOW)
    total = found.total
    assert total is not None
    assert (total.requests, total.completed, total.failed, total.cancelled) == (203, 200, 2, 1)
    assert (total.input_tokens, total.output_tokens) == (2030, 406)
    assert total.cost_usd == 201 * Decimal("0.25")
    assert total.latency.median == pytest.approx(100, rel=NEAR)
    assert total.latency.p95 == pytest.approx(190, rel=NEAR)
    assert total.ttft == total.latency, "they are the same numbers"
    assert found.active_models == 2
    assert sorted(total.providers) == ["p0", "p1", "p2", "sim"]
    assert [(one.model, one.requests) for one in found.models] == [("m1", 102), ("m0", 101)]
    assert sorted(found.models[1].creators) == ["", "maker0"]
    assert found.models[1].latency.p95 == pytest.approx(189, rel=NEAR)
    assert sum(one.cost_usd for one in found.models) == total.cost_usd


async def test_a_day_begins_at_its_minute_and_a_month_at_its_hour(
    spend: SpendTable, rollups: Rollups, statistics: ScannerStatistics
) -> None:
    day, month = timedelta(hours=24, minutes=-5), timedelta(days=30)
    for ago in (day, day + timedelta(minutes=1), month, month + timedelta(hours=1)):
        await spend.insert([request(ago)], token=str(ago))
    await rollups.refresh(most=MANY)
    of_day, of_month = [await statistics.read(window, now=NOW) for window in WINDOWS]
    assert of_day.total is not None
    assert of_day.total.requests == 1
    assert of_month.total is not None
    assert of_month.total.requests == 3
    assert of_month.since == ADMITTED.replace(minute=0, second=0, microsecond=0) - month


async def test_a_request_that_another_attempt_answers_is_counted_for_that_alone(
    spend: SpendTable, rollups: Rollups, statistics: ScannerStatistics
) -> None:
    lost = request(status="lost", billed=False, cost_usd=Decimal(0), model="a", provider="a")
    await spend.insert([lost], token="one")
    await rollups.refresh(most=MANY)
    given: dict[str, Any] = {"request_id": lost.request_id, "attempt": 2}
    await spend.insert([request(model="b", provider="b", **given)], token="two")
    for _ in range(2):
        await rollups.refresh(most=MANY)
        for window in WINDOWS:
            found = await statistics.read(window, now=NOW)
            (line,) = found.models
            assert (line.model, line.providers, line.requests, line.failed) == ("b", ["b"], 1, 0)
            assert line.latency.median == pytest.approx(1000, rel=NEAR)


async def test_only_answers_are_timed_and_only_streams_have_a_first_token(
    spend: SpendTable, rollups: Rollups, statistics: ScannerStatistics
) -> None:
    slow = request(took_ms=60_000, status="failed", billed=False, cost_usd=Decimal(0), model="x")
    whole = request(took_ms=10, streamed=False, ttft_ms=9.0, model="y")
    early = request(took_ms=-5, streamed=True, ttft_ms=None, model="z")
    await spend.insert([slow, whole, early], token="one")
    await rollups.refresh(most=MANY)
    found = await statistics.read("24h", now=NOW)
    none = Quantiles(None, None)
    timed = {one.model: (one.latency, one.ttft) for one in found.models}
    assert timed["x"] == timed["z"] == (none, none), "failed; and a clock that was set back"
    assert timed["y"][0].median == pytest.approx(10, rel=NEAR)
    assert timed["y"][1] == none


async def test_a_long_list_of_models_is_cut_and_the_sums_are_of_all(
    spend: SpendTable, rollups: Rollups, statistics: ScannerStatistics
) -> None:
    count = scanner_statistics.MAX_MODELS + 5
    await spend.insert([request(model=f"m{at}") for at in range(count)], token="one")
    await rollups.refresh(most=MANY)
    found = await statistics.read("30d", now=NOW)
    assert found.total is not None
    assert found.total.requests == found.active_models == count
    assert len(found.models) == scanner_statistics.MAX_MODELS


async def test_minutes_are_forgotten_after_three_days_and_hours_are_not(
    spend: SpendTable, rollups: Rollups, store: ClickHouse
) -> None:
    await spend.insert([request()], token="one")
    await rollups.refresh(most=MANY)
    await store.command("SYSTEM START TTL MERGES scanner_sums")
    await store.command("OPTIMIZE TABLE scanner_sums FINAL")
    grains = await store.query("SELECT DISTINCT grain FROM scanner_sums ORDER BY grain")
    assert grains == [("day",), ("hour",)]
