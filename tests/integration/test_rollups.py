"""Hourly sums on a real ClickHouse: whatever came twice or late, they are what the rows add up to."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from structlog.testing import capture_logs

from shared.clickhouse import rollups as rolling
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.retention import keep_rows
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.usage_filter import EPOCH, UsageFilter
from shared.clickhouse.usage_summary import GROUPS, Line, UsageSummary
from shared.ids import new_id
from shared.metrics import Metrics
from shared.spend import SpendRow
from tests.spend_rows import ADMITTED, spend_row
from workers.ledger import LedgerChores

EVERYTHING = UsageFilter()
HOUR = ADMITTED.replace(minute=0, second=0, microsecond=0)
MANY = 1_000


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    await migrate(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    yield store
    await store.close()


@pytest.fixture
def spend(store: ClickHouse) -> SpendTable:
    return SpendTable(store)


@pytest.fixture
def rollups(store: ClickHouse) -> Rollups:
    return Rollups(store)


@pytest.fixture
def summary(store: ClickHouse) -> UsageSummary:
    return UsageSummary(store)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows count as seen at once, so that sums are asked of the hourly tables alone."""
    monkeypatch.setattr(rolling, "SETTLING", timedelta(0))


def rows(count: int) -> list[SpendRow]:
    """Requests of several hours, users, models and ends."""
    return [
        spend_row(
            at + 1,
            created_at=ADMITTED + timedelta(minutes=7 * at),
            billed=True,
            model=f"model-{at % 3}",
            status="failed" if at % 5 == 0 else "completed",
            tags={"team": f"team-{at % 2}"},
        )
        for at in range(count)
    ]


async def by(summary: UsageSummary, group: str, **wanted: object) -> dict[str, Line]:
    found = await summary.lines(UsageFilter(**wanted), by=group, limit=1000)  # type: ignore[arg-type]
    return {line.group: line for line in found}


async def everything(summary: UsageSummary) -> dict[str, dict[str, Line]]:
    return {group: await by(summary, group) for group in (*GROUPS, "tag:team")}


def cost(given: list[SpendRow]) -> Decimal:
    return sum((row.cost_usd for row in given), Decimal(0))


@pytest.mark.usefixtures("settled")
async def test_sums_are_the_same_before_and_after_they_are_rolled_up(
    spend: SpendTable, rollups: Rollups, summary: UsageSummary, store: ClickHouse
) -> None:
    given = rows(60)
    await spend.insert(given, token="one")
    before = await everything(summary)
    assert sum(line.cost_usd for line in before["model"].values()) == cost(given)
    assert before["tag:team"]["team-0"].requests == 30
    assert before["endpoint"]["chat.completions"].errors == 12
    await asyncio.sleep(0.01)  # the computation has a later millisecond than the rows
    assert (await rollups.refresh(most=MANY)).hours == 7
    assert await rollups.stale_hours() == []
    await store.command("TRUNCATE TABLE spend_rows")
    assert await everything(summary) == before, "they come from the hourly tables alone"


@pytest.mark.usefixtures("settled")
async def test_repeats_and_late_rows_leave_the_sums_exact(
    spend: SpendTable, rollups: Rollups, summary: UsageSummary
) -> None:
    given = rows(60)
    await spend.insert(given[:40], token="one")
    await rollups.refresh(most=MANY)
    await spend.insert(given[:40], token="repeated")
    await spend.insert(given[40:], token="later")
    late = [spend_row(7, created_at=given[0].created_at, billed=True)]
    await spend.insert(late, token="late")
    fresh = await everything(summary)
    await rollups.refresh(most=MANY)
    await rollups.refresh(most=MANY)
    for found in (fresh, await everything(summary)):
        assert sum(line.requests for line in found["model"].values()) == 61
        assert sum(line.cost_usd for line in found["day"].values()) == cost([*given, *late])


@pytest.mark.usefixtures("settled")
async def test_a_line_that_is_not_there_any_more_is_counted_no_more(
    spend: SpendTable, rollups: Rollups, summary: UsageSummary
) -> None:
    request = {"request_id": new_id(), "created_at": ADMITTED}
    await spend.insert([spend_row(0, attempt=1, status="lost", provider="a", **request)], token="1")
    await rollups.refresh(most=MANY)
    assert set(await by(summary, "provider")) == {"a"}
    answered = spend_row(9, attempt=2, status="completed", billed=True, provider="b", **request)
    await spend.insert([answered], token="2")
    await rollups.refresh(most=MANY)
    (line,) = (await by(summary, "provider")).values()
    assert (line.group, line.requests, line.attempts, line.errors) == ("b", 1, 2, 0)


@pytest.mark.usefixtures("settled")
async def test_two_processes_may_roll_up_at_the_same_time(
    spend: SpendTable, rollups: Rollups, summary: UsageSummary, clickhouse_url: str
) -> None:
    given = rows(60)
    await spend.insert(given, token="one")
    before = await everything(summary)
    other = ClickHouse(clickhouse_url)
    await asyncio.gather(rollups.refresh(most=MANY), Rollups(other).refresh(most=MANY))
    await other.close()
    assert await everything(summary) == before


@pytest.mark.usefixtures("settled")
async def test_a_round_that_was_cut_short_is_gone_on_with(
    spend: SpendTable, rollups: Rollups
) -> None:
    await spend.insert(rows(60), token="one")
    await asyncio.sleep(0.01)
    cut = await rollups.refresh(most=3)
    assert cut == (3, EPOCH), "the mark does not move"
    assert len(await rollups.stale_hours()) == 4
    assert (await rollups.refresh(most=MANY)).until > EPOCH
    assert await rollups.stale_hours() == []


async def test_an_hour_is_computed_again_until_its_news_have_settled(
    spend: SpendTable, rollups: Rollups
) -> None:
    await spend.insert([spend_row()], token="one")
    for _ in range(3):
        assert (await rollups.refresh(most=MANY)).hours == 1
    assert await rollups.stale_hours() == [HOUR]


async def test_the_lag_is_the_age_of_the_last_whole_round(
    spend: SpendTable, rollups: Rollups
) -> None:
    assert await rollups.lag_seconds() == 0
    await spend.insert([spend_row()], token="one")
    assert await rollups.lag_seconds() > 1_000_000, "there never was a round"
    await rollups.refresh(most=MANY)
    assert 0 <= await rollups.lag_seconds() < 60


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("rolled_up", [False, True])
async def test_times_inside_an_hour_and_filters_are_kept_to(
    spend: SpendTable, rollups: Rollups, summary: UsageSummary, rolled_up: bool
) -> None:
    given = rows(60)
    await spend.insert(given, token="one")
    if rolled_up:
        await asyncio.sleep(0.01)
        await rollups.refresh(most=MANY)
    asked = {"since": given[3].created_at, "until": given[50].created_at}
    found = await by(summary, "hour", **asked)
    assert sum(line.cost_usd for line in found.values()) == cost(given[3:50])
    assert list(found) == sorted(found)
    inside = {"since": given[3].created_at, "until": given[5].created_at}
    assert sum(line.requests for line in (await by(summary, "day", **inside)).values()) == 2
    found = await by(summary, "model", **asked, user="user-3", status="success")
    of_user = [row for row in given[3:50] if row.user == "user-3" and row.status == "completed"]
    assert sum(line.requests for line in found.values()) == len(of_user)
    # Hours know no users by tag, and no tags by user: both are summed from rows.
    found = await by(summary, "tag:team", **asked, user="user-3", status="success")
    assert sum(line.requests for line in found.values()) == len(of_user)
    found = await by(summary, "user", **asked, tag=("team", "team-1"))
    assert sum(line.requests for line in found.values()) == len(
        [row for row in given[3:50] if row.tags["team"] == "team-1"]
    )


async def test_what_costs_most_comes_first_and_pages_do_not_overlap(
    spend: SpendTable, summary: UsageSummary
) -> None:
    await spend.insert(rows(60), token="one")
    whole = await summary.lines(EVERYTHING, by="user", limit=100)
    assert [line.cost_usd for line in whole] == sorted(
        (line.cost_usd for line in whole), reverse=True
    )
    pages = [await summary.lines(EVERYTHING, by="user", limit=3, skip=at) for at in (0, 3, 6)]
    assert [line for page in pages for line in page] == whole


@pytest.mark.parametrize(("age_hours", "summed"), [(20, 1), (30, 0)])
async def test_with_one_day_of_rows_that_day_is_summed(
    spend: SpendTable, rollups: Rollups, age_hours: int, summed: int
) -> None:
    created = datetime.now(UTC) - timedelta(hours=age_hours)
    await spend.insert([spend_row(created_at=created)], token="one")
    assert (await rollups.refresh(most=MANY, keep_days=1)).hours == summed


async def test_the_chores_keep_the_ledger_and_tell_its_lag(
    spend: SpendTable, store: ClickHouse, summary: UsageSummary
) -> None:
    metrics = Metrics()
    chores = LedgerChores(store, metrics, keep_days=3000)
    await spend.insert([spend_row()], token="one")
    await chores.tell_lag({})
    assert metrics.usage_lag.labels().value > 1_000_000
    for chore in (chores.roll_up, chores.tell_lag, chores.forget_rows):
        await chore({})
    assert metrics.usage_lag.labels().value < 60
    assert metrics.usage_hours.labels().value == 1
    assert not await keep_rows(store, days=3000)
    assert len(chores.jobs()) == 3


async def test_chores_are_put_off_while_clickhouse_is_away() -> None:
    store = ClickHouse("http://127.0.0.1:9/nowhere")
    chores = LedgerChores(store, Metrics(), keep_days=0)
    with capture_logs() as logs:
        for chore in (chores.roll_up, chores.tell_lag, chores.forget_rows):
            await chore({})
    assert [line["action"] for line in logs] == ["chore_put_off"] * 3
    await store.close()


async def test_sums_outlive_the_rows_that_are_no_longer_kept(
    spend: SpendTable, rollups: Rollups, summary: UsageSummary, store: ClickHouse
) -> None:
    now = datetime.now(UTC)
    old = spend_row(5, created_at=now - timedelta(days=40), billed=True)
    await spend.insert([old, spend_row(6, created_at=now, billed=True)], token="one")
    await rollups.refresh(most=MANY)
    assert await keep_rows(store, days=30)
    assert not await keep_rows(store, days=30), "it is so already"
    await store.command("OPTIMIZE TABLE spend_rows FINAL")
    assert await spend.count() == 1
    # Late news of a forgotten hour must not cost what the sums know of it.
    await spend.insert([msgspec.structs.replace(old, row_id=new_id())], token="late")
    await rollups.refresh(most=MANY, keep_days=30)
    rows = await store.query("SELECT sum(requests) FROM usage_hourly FINAL")
    assert rows == [(2,)]
    assert await keep_rows(store, days=7)
    assert await keep_rows(store, days=0)
    assert not await keep_rows(store, days=0)
