"""Pages of the ledger on a real ClickHouse: one entry per request, each once, newest first."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.usage import Cursor, Entry, UsageTable
from shared.clickhouse.usage_filter import UsageFilter
from shared.ids import new_id
from shared.spend import SpendRow
from tests.spend_rows import ADMITTED, spend_row

EVERYTHING = UsageFilter()
MINUTE = timedelta(minutes=1)


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
def usage(store: ClickHouse) -> UsageTable:
    return UsageTable(store)


def ids(entries: list[Entry]) -> list[str]:
    return [entry.attempt.request_id.hex for entry in entries]


async def walk(usage: UsageTable, wanted: UsageFilter, *, limit: int) -> list[str]:
    """Every page from the newest to the last."""
    found: list[str] = []
    after: Cursor | None = None
    while True:
        page = await usage.page(wanted, limit=limit, after=after)
        found += ids(page.entries)
        if page.next is None:
            return found
        after = Cursor.read(str(page.next))


def spread(count: int) -> list[SpendRow]:
    """Requests over a month, some at the very same moment."""
    return [
        spend_row(at, created_at=ADMITTED - timedelta(hours=at // 3 * 7)) for at in range(count)
    ]


async def test_without_rows_there_are_no_entries(usage: UsageTable) -> None:
    assert await usage.page(EVERYTHING, limit=10) == ([], None)


async def test_pages_hold_every_request_once_newest_first(
    spend: SpendTable, usage: UsageTable
) -> None:
    rows = spread(300)
    await spend.insert(rows, token="one")
    await spend.insert(rows[100:200], token="repeated")
    found = await walk(usage, EVERYTHING, limit=7)
    assert sorted(found) == sorted(row.request_id for row in rows)
    admitted = {row.request_id: row.created_at for row in rows}
    times = [admitted[request_id] for request_id in found]
    assert times == sorted(times, reverse=True)
    assert found == await walk(usage, EVERYTHING, limit=1000)


async def test_rows_that_come_between_two_pages_repeat_and_hide_nothing(
    spend: SpendTable, usage: UsageTable
) -> None:
    rows = spread(30)
    await spend.insert(rows, token="one")
    first = await usage.page(EVERYTHING, limit=10)
    later = [spend_row(at, created_at=ADMITTED + timedelta(minutes=at)) for at in range(1, 20)]
    await spend.insert(later, token="two")
    second = await usage.page(EVERYTHING, limit=100, after=first.next)
    assert sorted(ids(first.entries) + ids(second.entries)) == sorted(r.request_id for r in rows)


async def test_skip_and_limit_cut_the_same_order(spend: SpendTable, usage: UsageTable) -> None:
    await spend.insert(spread(100), token="one")
    whole = await walk(usage, EVERYTHING, limit=1000)
    for skip in (0, 1, 3, 50, 99, 100, 1000):
        page = await usage.page(EVERYTHING, limit=10, skip=skip)
        assert ids(page.entries) == whole[skip : skip + 10]


async def test_attempts_of_a_request_are_one_entry_with_the_one_that_answered(
    spend: SpendTable, usage: UsageTable
) -> None:
    request_id = new_id()
    given: dict[str, object] = {"request_id": request_id, "created_at": ADMITTED}
    attempts = [
        spend_row(0, attempt=1, status="failed", provider="first", **given),
        spend_row(0, attempt=2, status="failed", provider="first", **given),
        spend_row(25, attempt=3, status="completed", billed=True, provider="second", **given),
    ]
    await spend.insert(attempts, token="one")
    (entry,) = (await usage.page(EVERYTHING, limit=10)).entries
    assert (entry.attempt.provider, entry.attempt.status) == ("second", "completed")
    assert entry.cost_usd == Decimal("0.000000025")
    # A filter means the attempt that counts, not any that there was.
    for provider, status, count in (("first", None, 0), ("second", None, 1), (None, "error", 0)):
        wanted = UsageFilter(provider=provider, status=status)  # type: ignore[arg-type]
        assert len((await usage.page(wanted, limit=10)).entries) == count


async def test_pages_by_what_an_attempt_was_are_full_though_some_requests_do_not_fit(
    spend: SpendTable, usage: UsageTable
) -> None:
    rows: list[SpendRow] = []
    for at in range(300):
        given: dict[str, Any] = {"request_id": new_id(), "created_at": ADMITTED - at * MINUTE}
        rows.append(spend_row(attempt=1, status="failed", **given))
        if at % 3:
            rows.append(spend_row(attempt=2, status="completed", **given))
    await spend.insert(rows, token="one")
    wanted = UsageFilter(status="error")
    failed = await walk(usage, wanted, limit=7)
    assert len(set(failed)) == len(failed) == 100
    assert failed == await walk(usage, wanted, limit=1000)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (UsageFilter(user="user-3"), 2),
        (UsageFilter(user="it's\\ \x00 nobody"), 0),
        (UsageFilter(tenant="default"), 14),
        (UsageFilter(tenant="other"), 0),
        (UsageFilter(key_id="key_1", model="sim_echo", endpoint="chat.completions"), 14),
        (UsageFilter(provider="sim", tier="TEE", status="success"), 14),
        (UsageFilter(tag=("süß", "ja")), 14),
        (UsageFilter(tag=("süß", "nein")), 0),
        (UsageFilter(tag=("absent", "")), 0),
        (UsageFilter(since=ADMITTED + timedelta(microseconds=10)), 4),
        (UsageFilter(until=ADMITTED + timedelta(microseconds=10)), 10),
    ],
)
async def test_a_filter_leaves_what_it_names(
    spend: SpendTable, usage: UsageTable, wanted: UsageFilter, count: int
) -> None:
    await spend.insert([spend_row(at) for at in range(14)], token="one")
    assert len((await usage.page(wanted, limit=100)).entries) == count
