"""The spend table on a real ClickHouse: what is stored is what was given, once."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from shared.clickhouse.client import ClickHouse, ClickHouseAway, ContentRefused
from shared.clickhouse.migrate import MigrationChanged, migrate, migrations
from shared.clickhouse.spend import NAMES, SpendTable
from shared.price import Price
from shared.usage import Usage
from tests.spend_rows import ADMITTED, spend_row


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    await migrate(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    yield store
    await store.close()


@pytest.fixture
def table(store: ClickHouse) -> SpendTable:
    return SpendTable(store)


async def stored(store: ClickHouse) -> int:
    return int((await store.query("SELECT count() FROM spend_rows"))[0][0])


async def test_a_row_comes_back_as_it_was_given(table: SpendTable) -> None:
    row = spend_row(123_456_789)
    await table.insert([row], token="one")
    assert await table.rows(request_id=row.request_id) == [row]


async def test_a_row_with_nothing_but_what_it_must_have_comes_back_too(table: SpendTable) -> None:
    row = spend_row(
        key_id=None,
        episode_id=None,
        client_request_id=None,
        error_code=None,
        finish_reason=None,
        ttft_ms=None,
        tags={},
        usage=Usage(),
        price=Price(),
        cost_usd=Decimal(0),
        created_at=datetime(1970, 1, 1, tzinfo=UTC),
    )
    await table.insert([row], token="one")
    assert await table.rows(request_id=row.request_id) == [row]


async def test_values_at_their_bounds_are_exact(table: SpendTable, store: ClickHouse) -> None:
    row = spend_row(
        usage=Usage(2**53 - 1, 2**64 - 1, 0, 1, 2, 3),
        cost_usd=Decimal("9007199.254740991"),
        price=Price(Decimal("999999.999999999999"), Decimal("0.000000000001"), Decimal(0)),
        user="ü" * 200,
        client_request_id="x" * 20_000,
        tags={f"key {at}": "\n\0'\\" * at for at in range(50)},
        created_at=datetime(2105, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    )
    await table.insert([row], token="one")
    assert await table.rows(request_id=row.request_id) == [row]
    assert await store.query("SELECT cost_usd, toTypeName(cost_usd) FROM spend") == [
        (Decimal("9007199.254740991"), "Decimal(38, 9)")
    ]


async def test_repeats_of_a_row_fold_into_one(table: SpendTable, store: ClickHouse) -> None:
    rows = [spend_row(at) for at in range(10)]
    await table.insert(rows, token="one")
    await table.insert(rows[5:], token="another")
    assert await stored(store) == 15
    assert await table.count() == 10
    assert await store.query("SELECT sum(cost_usd) FROM spend") == [(Decimal("0.000000045"),)]


async def test_the_same_token_spares_storing_the_same_rows_again(
    table: SpendTable, store: ClickHouse
) -> None:
    rows = [spend_row(at) for at in range(10)]
    await table.insert(rows, token="one")
    await table.insert(rows, token="one")
    assert await stored(store) == 10


async def test_an_insert_waits_for_the_table_and_says_which_batch_it_is(
    clickhouse_url: str, store: ClickHouse
) -> None:
    async with recorded(clickhouse_url) as (url, sent):
        through = ClickHouse(url)
        await SpendTable(through).insert([spend_row()], token="batch-7")
        await through.close()
    targets = re.findall(rb"POST (\S+) HTTP", sent)
    (insert,) = [target.decode() for target in targets if b"batch-7" in target]
    settings = parse_qs(urlsplit(insert).query)
    assert settings["async_insert"] == ["0"]
    assert settings["insert_deduplication_token"] == ["batch-7"]
    assert await stored(store) == 1


@asynccontextmanager
async def recorded(url: str) -> AsyncIterator[tuple[str, bytearray]]:
    """The same server behind a relay that keeps what is sent to it."""
    parts, sent = urlsplit(url), bytearray()

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, kept: bytearray | None
    ) -> None:
        while data := await reader.read(65_536):
            if kept is not None:
                kept += data
            writer.write(data)
            await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(parts.hostname, parts.port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pass_on(reader, back, kept=sent))
            group.create_task(pass_on(there, writer, kept=None))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{port}"), sent


async def test_more_rows_than_a_client_block_of_65536_all_arrive(
    table: SpendTable, store: ClickHouse
) -> None:
    row = spend_row()
    rows = [
        msgspec.structs.replace(row, row_id=f"{at:032x}", cost_usd=Decimal(at).scaleb(-9))
        for at in range(70_000)
    ]
    await table.insert(rows, token="many")
    assert await table.count() == 70_000
    assert await store.query("SELECT sum(cost_usd) FROM spend") == [(Decimal("2.449965"),)]


async def test_rows_of_many_months_go_in_one_insert(table: SpendTable) -> None:
    months = [ADMITTED + timedelta(days=31 * at) for at in range(150)]
    await table.insert([spend_row(at, created_at=day) for at, day in enumerate(months)], token="x")
    assert await table.count() == 150


async def test_a_row_that_cannot_be_stored_refuses_its_batch_and_leaves_nothing(
    table: SpendTable,
) -> None:
    with pytest.raises(ContentRefused):
        await table.insert([spend_row(1), spend_row(2, row_id="x" * 32)], token="one")
    assert await table.count() == 0


async def test_what_the_server_refuses_for_its_content_is_told_from_what_it_cannot_do_now(
    store: ClickHouse,
) -> None:
    await store.command("CREATE TABLE small (n UInt8) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(ContentRefused, match="ClickHouse error"):
        await store.insert("small", ["n"], b"not native at all", token="x")
    with pytest.raises(ClickHouseAway, match="UNKNOWN_TABLE"):
        await store.insert("missing", ["n"], b"", token="x")


async def test_a_closed_port_is_an_absence() -> None:
    store = ClickHouse("http://127.0.0.1:9/nowhere")
    with pytest.raises(ClickHouseAway):
        await store.query("SELECT 1")
    await store.close()


async def test_the_table_has_every_column_and_one_of_its_own(store: ClickHouse) -> None:
    for table in ("spend_rows", "spend"):
        found = await store.query(
            "SELECT name FROM system.columns"
            " WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
            {"table": table},
        )
        assert [name for (name,) in found] == [*NAMES, "inserted_at"]


async def test_migrations_are_applied_once(clickhouse_url: str) -> None:
    assert await migrate(clickhouse_url) == [one.name for one in migrations()]
    assert await migrate(clickhouse_url) == []


async def test_migrating_makes_the_database_that_the_url_names(clickhouse_url: str) -> None:
    url = f"{clickhouse_url}_made"
    await migrate(url)
    store = ClickHouse(url)
    assert await SpendTable(store).count() == 0
    await store.command(f"DROP DATABASE {store.database}")
    await store.close()


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(
    clickhouse_url: str, store: ClickHouse
) -> None:
    first, *rest = migrations()
    changed = msgspec.structs.replace(first, text=first.text + "\nSELECT 1;\n")
    with pytest.raises(MigrationChanged, match="0001_spend"):
        await migrate(clickhouse_url, [changed, *rest])


async def test_rows_of_an_earlier_release_were_not_cached(clickhouse_url: str) -> None:
    url = f"{clickhouse_url}_earlier"
    await migrate(url, migrations()[:1])
    store = ClickHouse(url)
    row = spend_row(cached=False)
    await store.command(
        "INSERT INTO spend_rows (row_id, request_id, created_at)"
        " VALUES ({row:UUID}, {request:UUID}, now64(6))",
        {"row": row.row_id, "request": row.request_id},
    )
    await migrate(url)
    (found,) = await store.query("SELECT request_id, cached FROM spend")
    assert (found[0].hex, found[1]) == (row.request_id, False)
    await SpendTable(store).insert([spend_row(cached=True)], token="one")
    assert await store.query("SELECT count() FROM spend WHERE cached") == [(1,)]
    await store.command(f"DROP DATABASE {store.database}")
    await store.close()


async def test_an_unfinished_migration_is_finished_by_the_next_release(
    clickhouse_url: str, store: ClickHouse
) -> None:
    await store.command("TRUNCATE TABLE schema_migrations")
    await store.command("DROP VIEW spend")
    await migrate(clickhouse_url)
    assert await SpendTable(store).count() == 0
