"""The Scanner's requests on a real ClickHouse: each once, by the attempt that counts, for any filter."""

import random
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from shared.clickhouse import scanner
from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.migrate import migrate, migrations
from shared.clickhouse.retention import keep_rows
from shared.clickhouse.scanner import Page, ScannerTable, Shown
from shared.clickhouse.scanner_filter import Owner, ScannerFilter
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.usage import Cursor
from shared.ids import dashed, new_id
from shared.spend import SpendRow
from tests.spend_rows import ADMITTED, id_at, spend_row

EVERYTHING = ScannerFilter()
NASTY = [
    "50%_off",
    "a' OR 1=1 --",
    "back\\slash\\",
    "{model:String}",
    "süß/モデル-😀",
    "tab\tnew\nline",
    "nul\x00l",
]


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    await migrate(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    # What is not merged yet must be read as what is.
    await store.command("SYSTEM STOP MERGES scanner_requests")
    yield store
    await store.close()


@pytest.fixture
def spend(store: ClickHouse) -> SpendTable:
    return SpendTable(store)


@pytest.fixture
def table(store: ClickHouse) -> ScannerTable:
    return ScannerTable(store)


def request(number: int = 0, *, created_at: datetime | None = None, **changes: Any) -> SpendRow:
    """A request's only row, which answered it; of the millisecond of its number."""
    created_at = created_at or ADMITTED + timedelta(milliseconds=number)
    usual: dict[str, Any] = {
        "request_id": id_at(created_at), "created_at": created_at, "billed": True, "variant": "",
        "attempt": 1, "cached": False, "upstream_model": "openai/gpt-oss-120b",
    }  # fmt: skip
    return spend_row(number, **usual | changes)


def ids(requests: Iterable[Shown]) -> list[str]:
    return [one.request_id.hex for one in requests]


async def listed(table: ScannerTable, **wanted: Any) -> list[str]:
    return ids((await table.page(ScannerFilter(**wanted), limit=50)).requests)


async def by_page(table: ScannerTable, wanted: ScannerFilter, *, limit: int) -> list[str]:
    found: list[str] = []
    while True:
        page = await table.page(wanted, limit=limit, skip=len(found))
        assert len(page.requests) == limit or page.next is None
        found += ids(page.requests)
        if page.next is None:
            return found


async def by_cursor(table: ScannerTable, wanted: ScannerFilter, *, limit: int) -> list[str]:
    found: list[str] = []
    after: Cursor | None = None
    while True:
        page = await table.page(wanted, limit=limit, after=after)
        found += ids(page.requests)
        if page.next is None:
            return found
        after = Cursor.read(str(page.next))


async def test_without_rows_there_are_no_requests(table: ScannerTable) -> None:
    assert await table.page(EVERYTHING, limit=10) == Page([], None)


async def test_a_request_is_shown_with_what_its_row_tells(
    spend: SpendTable, table: ScannerTable
) -> None:
    row = request(26_000, tags={"application": "shop", "team": "blue"}, streamed=True)
    await spend.insert([row], token="one")
    (found,) = (await table.page(EVERYTHING, limit=10)).requests
    assert (found.request_id.hex, found.created_at) == (row.request_id, row.created_at)
    assert (found.model, found.creator, found.application) == ("sim_echo", "openai", "shop")
    assert (found.provider, found.tier, found.endpoint) == ("sim", "TEE", "chat.completions")
    assert (found.status, found.is_metered, found.is_priced) == ("completed", True, True)
    assert (found.input_tokens, found.output_tokens) == (11, 22)
    assert found.cost_usd == Decimal("0.000026")
    took = (row.ended_at - row.created_at).total_seconds() * 1000
    assert found.latency_ms == pytest.approx(took, abs=0.01)
    assert found.ttft_ms == 12.5


async def test_pages_by_number_and_by_cursor_hold_every_request_once_newest_first(
    spend: SpendTable, table: ScannerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "LEAST_ASKED", 10)
    rows = [request(at, created_at=ADMITTED - timedelta(hours=at // 3 * 7)) for at in range(150)]
    await spend.insert(rows, token="one")
    await spend.insert(rows[50:100], token="repeated")
    found = await by_page(table, EVERYTHING, limit=7)
    assert sorted(found) == sorted(row.request_id for row in rows)
    admitted = {row.request_id: row.created_at for row in rows}
    times = [admitted[one] for one in found]
    assert times == sorted(times, reverse=True)
    assert found == await by_cursor(table, EVERYTHING, limit=7)
    assert found == await by_page(table, EVERYTHING, limit=1000)


async def test_rows_that_come_between_two_pages_repeat_and_hide_nothing_below_a_cursor(
    spend: SpendTable, table: ScannerTable
) -> None:
    rows = [request(at, created_at=ADMITTED - timedelta(hours=at)) for at in range(30)]
    await spend.insert(rows, token="one")
    first = await table.page(EVERYTHING, limit=10)
    later = [request(at, created_at=ADMITTED + timedelta(minutes=at)) for at in range(1, 20)]
    await spend.insert(later, token="two")
    second = await table.page(EVERYTHING, limit=100, after=first.next)
    assert ids(first.requests) + ids(second.requests) == [row.request_id for row in rows]


def attempts_of(dice: random.Random, number: int) -> list[SpendRow]:
    """One request as workers leave them: attempts that failed or were lost, then what became of it."""
    created_at = ADMITTED - timedelta(minutes=dice.randrange(5_000))
    given: dict[str, Any] = {
        "created_at": created_at,
        "request_id": id_at(created_at),
        "tenant": dice.choice(["default", "other"]),
        "user": dice.choice(["ann", "bob"]),
        "tags": dice.choice([{}, {"application": "shop"}, {"application": "chat", "x": "y"}]),
    }
    is_of_function = dice.random() < 0.2
    rows = []
    last = dice.choice([1, 1, 1, 2, 3])
    for attempt in range(1, last + 1):
        status = dice.choice(["completed", "failed", "cancelled", "lost"])
        if attempt < last and not is_of_function:
            status = dice.choice(["failed", "lost"])
        is_billed = status in ("completed", "cancelled")
        rows.append(
            request(
                number,
                attempt=attempt,
                status=status,
                billed=is_billed,
                cost_usd=Decimal(number + 1).scaleb(-9) if is_billed else Decimal(0),
                variant="best" if is_of_function else "",
                model=dice.choice(["echo", "Echo-Large"]),
                upstream_model=dice.choice(["openai/echo", "qwen/echo/8b", "echo"]),
                started_at=created_at + timedelta(seconds=attempt),
                ended_at=created_at + timedelta(seconds=attempt + 1),
                **given,
            )
        )
    return rows


def counting(rows: list[SpendRow]) -> SpendRow:
    return max(rows, key=lambda row: (row.billed or row.status == "completed", row.attempt))


def fits(row: SpendRow, wanted: ScannerFilter) -> bool:
    maker, slash, _ = row.upstream_model.partition("/")
    facts = {
        "status": "failed" if row.status == "lost" else row.status,
        "model": row.model,
        "creator": maker if slash else "",
        "application": row.tags.get("application", ""),
        "owner": (row.tenant, row.user),
    }
    asked = {name: getattr(wanted, name) for name in facts}
    is_named = wanted.text is None or wanted.text.lower() in row.model.lower()
    return is_named and all(value in (None, facts[name]) for name, value in asked.items())


WANTED = [
    EVERYTHING,
    *(ScannerFilter(status=status) for status in ("completed", "failed", "cancelled")),
    ScannerFilter(model="echo"),
    ScannerFilter(creator="openai", status="failed"),
    ScannerFilter(creator=""),
    ScannerFilter(application="shop", status="cancelled"),
    ScannerFilter(application=""),
    ScannerFilter(text="LARGE", creator="qwen"),
    ScannerFilter(owner=Owner("default", "ann")),
    ScannerFilter(owner=Owner("other", "bob"), status="failed", model="Echo-Large"),
    ScannerFilter(owner=Owner("nobody", "bob")),
]


async def test_every_filter_means_the_attempt_that_counts_merged_or_not(
    store: ClickHouse, spend: SpendTable, table: ScannerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "LEAST_ASKED", 20)
    monkeypatch.setattr(scanner, "TIMES_AT_ONCE", 30)
    dice = random.Random(20260304)
    requests = [attempts_of(dice, number) for number in range(300)]
    rows = [row for one in requests for row in one]
    dice.shuffle(rows)
    for first in range(0, len(rows), 100):
        await spend.insert(rows[first : first + 100], token=str(first))
    for is_merged in (False, True):
        if is_merged:
            await store.command("SYSTEM START MERGES scanner_requests")
            await store.command("OPTIMIZE TABLE scanner_requests FINAL")
        for wanted in WANTED:
            expected = [one for one in requests if fits(counting(one), wanted)]
            order = sorted(expected, key=lambda one: one[0].created_at, reverse=True)
            found = await by_page(table, wanted, limit=17)
            assert found == await by_cursor(table, wanted, limit=13), wanted
            assert sorted(found) == sorted(one[0].request_id for one in order), wanted
            whole = (await table.page(wanted, limit=1000)).requests
            assert [one.created_at for one in whole] == [one[0].created_at for one in order]
            costs = {one[0].request_id: sum(row.cost_usd for row in one) for one in requests}
            assert {one.cost_usd - costs[one.request_id.hex] for one in whole} <= {0}


async def test_an_attempt_that_came_later_takes_its_requests_place_at_once(
    spend: SpendTable, table: ScannerTable
) -> None:
    failed = request(status="failed", billed=False, provider="first")
    await spend.insert([failed], token="one")
    assert await listed(table, status="failed") == [failed.request_id]
    given: dict[str, Any] = {"request_id": failed.request_id, "created_at": failed.created_at}
    await spend.insert([request(attempt=2, provider="second", **given)], token="two")
    assert await listed(table, status="failed") == []
    (found,) = (await table.page(EVERYTHING, limit=10)).requests
    assert (found.status, found.provider, found.attempt) == ("completed", "second", 2)


async def test_a_request_whose_worker_was_lost_has_failed(
    spend: SpendTable, table: ScannerTable
) -> None:
    row = request(status="lost", billed=False)
    await spend.insert([row], token="one")
    assert await listed(table, status="failed") == [row.request_id]
    whole = await table.find(UUID(row.request_id))
    assert whole is not None
    assert whole.attempts[0].status == "failed"


@pytest.mark.parametrize("name", NASTY)
async def test_names_are_never_patterns_nor_parts_of_a_statement(
    spend: SpendTable, table: ScannerTable, name: str
) -> None:
    usual = request(1, upstream_model="50 off/x", tags={"application": "50x_off"}, model="50xyoff")
    odd = request(2, model=name, upstream_model=f"{name}/x", tags={"application": name}, user=name)
    await spend.insert([usual, odd], token="one")
    maker = name.partition("/")[0]
    for wanted in (
        {"model": name}, {"creator": maker}, {"application": name}, {"text": name},
        {"text": name[1:-1]}, {"owner": Owner("default", name)},
    ):  # fmt: skip
        assert await listed(table, **wanted) == [odd.request_id], wanted


async def test_a_search_finds_an_id_by_its_beginning_and_a_model_by_a_part_in_any_case(
    spend: SpendTable, table: ScannerTable
) -> None:
    rows = [
        request(at, created_at=ADMITTED + timedelta(hours=at), model=f"Qwen-{at}B")
        for at in range(5)
    ]
    await spend.insert(rows, token="one")
    for row in rows:
        printed = dashed(row.request_id)
        for text in (printed, row.request_id, printed.upper(), printed[:20], row.request_id[:12]):
            assert await listed(table, text=text) == [row.request_id], text
        assert row.request_id in await listed(table, text=printed[:8])
        assert await listed(table, text=f"en-{row.model[5]}b") == [row.request_id]
    assert await listed(table, text=dashed(new_id())) == []
    assert await listed(table, text=dashed(rows[4].request_id), model="Qwen-0B") == []
    assert len(await listed(table, text="qwen")) == 5


async def test_a_request_is_found_whole_with_its_attempts_in_their_order(
    spend: SpendTable, table: ScannerTable
) -> None:
    answered = request(25, attempt=2, provider="second")
    given: dict[str, Any] = {
        "request_id": answered.request_id, "created_at": answered.created_at
    }  # fmt: skip
    failed = request(7, attempt=1, status="failed", billed=False, provider="first", **given)
    for token in ("one", "repeated"):
        await spend.insert([answered, failed, request(1)], token=token)
    found = await table.find(UUID(answered.request_id))
    assert found is not None
    assert [one.provider for one in found.attempts] == ["first", "second"]
    assert found.shown.provider == "second"
    assert found.shown.cost_usd == Decimal("0.000000032"), "of both"
    assert found.attempts[1].seconds == Decimal("9.125")
    for unknown in (new_id(), "0" * 32, "f" * 32):
        assert await table.find(UUID(unknown)) is None


async def test_a_batch_that_did_not_reach_the_list_reaches_it_with_its_repeat(
    store: ClickHouse, spend: SpendTable, table: ScannerTable
) -> None:
    row = request()
    await store.command("RENAME TABLE scanner_requests TO elsewhere")
    with pytest.raises(ClickHouseAway):
        await spend.insert([row], token="one")
    await store.command("RENAME TABLE elsewhere TO scanner_requests")
    await spend.insert([row], token="one")
    await spend.insert([row], token="one")
    assert await listed(table) == [row.request_id]
    assert await spend.rows(request_id=row.request_id) == [row]


async def test_what_was_there_before_the_list_is_in_it_for_a_month(clickhouse_url: str) -> None:
    await migrate(clickhouse_url, [one for one in migrations() if one.number < 5])
    store = ClickHouse(clickhouse_url)
    now = (await store.query("SELECT now64(6, 'UTC')"))[0][0]
    old, young = (request(created_at=now - timedelta(days=days)) for days in (40, 20))
    spend = SpendTable(store)
    await spend.insert([old, young], token="one")
    assert await migrate(clickhouse_url) == [one.name for one in migrations() if one.number >= 5]
    assert await listed(ScannerTable(store)) == [young.request_id]
    await store.close()


async def test_the_list_forgets_when_the_ledger_does(
    store: ClickHouse, spend: SpendTable, table: ScannerTable
) -> None:
    now = (await store.query("SELECT now64(6, 'UTC')"))[0][0]
    old, young = (request(created_at=now - timedelta(days=days)) for days in (40, 20))
    await spend.insert([old, young], token="one")
    await store.command("SYSTEM START MERGES scanner_requests")
    assert await keep_rows(store, days=30)
    await store.command("OPTIMIZE TABLE scanner_requests FINAL")
    assert await listed(table) == [young.request_id]
