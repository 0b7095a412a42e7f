"""The usage routes over a real ledger: Otari's entries, sums, and files."""

import csv
import io
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from api import problems
from api.auth import Authenticator
from api.routes import usage as routes
from api.usage_entry import FIELDS
from shared.catalog import Catalog
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.usage import UsageTable
from shared.clickhouse.usage_summary import UsageSummary
from shared.clock import SystemClock
from shared.document import Document
from shared.ids import dashed
from shared.postgres.audit import CLI
from shared.postgres.engine import make_engine
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.migrate import migrate
from shared.postgres.users import UserStore
from shared.price import Price
from tests.spend_rows import ADMITTED, spend_row

MASTER = "a-master-key-for-tests"
IN_USE = "someone/with:a=name"


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    await migrate_clickhouse(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    yield store
    await store.close()


@pytest.fixture
def spend(store: ClickHouse) -> SpendTable:
    return SpendTable(store)


@pytest.fixture
async def client(store: ClickHouse, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    keys = KeyStore(engine, SystemClock())
    await keys.create(KeyOptions(user_id="idle"))
    authenticator = Authenticator(
        keys=None,  # type: ignore[arg-type]  # the master key alone is asked for
        catalog=SimpleNamespace(current=Catalog(Document())),
        master_key=MASTER,
        clock=SystemClock(),
    )
    ledger = routes.Usage(
        table=UsageTable(store),
        summary=UsageSummary(store),
        users=UserStore(engine, SystemClock()),
        keys=keys,
    )
    app = FastAPI(redirect_slashes=False)
    app.include_router(routes.router(ledger, authenticator, "/v1"))
    problems.install(app)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"authorization": f"Bearer {MASTER}"},
    ) as client:
        yield client
    await engine.dispose()


async def entries(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = json.loads(answer.content, parse_float=Decimal)
    return found


async def test_an_entry_has_otaris_members_and_exact_money(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    row = spend_row(26_000, billed=True, user="u")
    await spend.insert([row], token="one")
    (found,) = await entries(client)
    assert tuple(found) == FIELDS
    assert found == {
        "id": dashed(row.request_id),
        "user_id": "u",
        "api_key_id": None,
        "timestamp": "2026-03-04T05:06:07.917234+00:00",
        "model": "sim_echo",
        "provider": "sim",
        "endpoint": "/v1/chat/completions",
        "prompt_tokens": 11,
        "completion_tokens": 22,
        "total_tokens": 33,
        "cost": Decimal("0.000026"),
        "status": "success",
        "error_message": None,
        "api_key_public_id": "key_1",
    }
    assert '"cost":0.000026,' in (await client.get("/v1/usage")).text


async def test_a_failed_call_has_neither_tokens_nor_cost_and_says_why(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    await spend.insert([spend_row(status="failed", key_id=None)], token="one")
    (found,) = await entries(client)
    assert found["status"] == "error"
    assert found["error_message"] == "upstream_error"
    assert found["api_key_id"] is None
    assert {found[name] for name in FIELDS if "tokens" in name or name == "cost"} == {None}


async def test_a_key_has_the_id_it_has_elsewhere_until_it_is_deleted(
    spend: SpendTable, client: httpx.AsyncClient, database_url: str
) -> None:
    engine = make_engine(database_url, "test")
    keys = KeyStore(engine, SystemClock())
    _, one = await keys.create(KeyOptions(user_id="u"))
    _, other = await keys.create(KeyOptions(user_id="u"))
    rows = [spend_row(user="u", key_id=info.public_id) for info in (one, one, other)]
    await spend.insert([*rows, spend_row(key_id=None)], token="one")

    def found(listed: list[dict[str, Any]]) -> set[tuple[str | None, str | None]]:
        return {(entry["api_key_id"], entry["api_key_public_id"]) for entry in listed}

    ids = {(str(info.id), info.public_id) for info in (one, other)}
    assert found(await entries(client)) == ids | {(None, None)}
    assert found((await client.get("/v1/users/u/usage")).json()) == ids
    lines = (await client.get("/v1/usage", params={"format": "csv"})).text.splitlines()
    assert found(list(csv.DictReader(lines))) == ids | {("", "")}
    # It is asked for by either id.
    for key_id in (str(one.id), one.id.hex, one.public_id):
        asked = await entries(client, api_key_id=key_id)
        assert (len(asked), found(asked)) == (2, {(str(one.id), one.public_id)})
        summary = await client.get("/v1/usage/summary", params={"api_key_id": key_id})
        assert summary.json()["data"][0]["requests"] == 2
    assert await entries(client, api_key_id=str(uuid.uuid4())) == []

    await keys.delete(str(other.id), CLI)
    await engine.dispose()
    assert found(await entries(client, user_id="u")) == {
        (str(one.id), one.public_id), (None, other.public_id)
    }  # fmt: skip


async def test_a_call_without_a_price_has_no_cost(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    await spend.insert([spend_row(price=Price(), cost_usd=Decimal(0))], token="one")
    (found,) = await entries(client)
    assert (found["cost"], found["prompt_tokens"]) == (None, 11)


async def test_dates_are_iso_or_epoch_and_the_end_is_exclusive(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    moment = ADMITTED.replace(microsecond=0)
    await spend.insert([spend_row(created_at=moment)], token="one")
    epoch = int(moment.timestamp())
    later = (moment + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    for query, count in (
        ({"start_date": 0}, 1),
        ({"start_date": epoch}, 1),
        ({"start_date": epoch + 1}, 0),
        ({"end_date": epoch}, 0),
        ({"end_date": epoch + 1}, 1),
        ({"end_date": 0}, 0),
        ({"start_date": moment.replace(tzinfo=None).isoformat()}, 1),
        ({"start_date": later}, 0),
        ({"start_date": f"{later}+02:00"}, 1),
        ({"start_date": "0001-01-01T00:00:00+14:00", "end_date": "9999-12-31T23:59:59-12:00"}, 1),
    ):
        assert len(await entries(client, **query)) == count, query
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"skip": -1}, "skip"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"cursor": "x"}, "cursor"),
        ({"format": "xml"}, "format"),
        ({"status": "fine"}, "status"),
        ({"tag": "blue"}, "tag"),
        ({"skip": 1, "model": "sim_echo"}, "skip"),
    ],
)
async def test_a_wrong_parameter_is_422_in_otaris_words(
    client: httpx.AsyncClient, query: dict[str, Any], place: str
) -> None:
    answer = await client.get("/v1/usage", params=query)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", place]


async def test_only_the_master_key_may_look(client: httpx.AsyncClient) -> None:
    for path in ("/v1/usage", "/v1/users/u/usage", "/v1/usage/summary"):
        answer = await client.get(f"{path}?limit=0", headers={"authorization": "Bearer gw_other"})
        assert answer.status_code == 401
        assert answer.json()["detail"] == "Invalid master key"


async def test_pages_follow_by_cursor_or_by_skip(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    await spend.insert([spend_row(at) for at in range(25)], token="one")
    whole = await entries(client, limit=1000)
    assert len(whole) == 25
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 10}
    while True:
        answer = await client.get("/v1/usage", params=query)
        found += json.loads(answer.content, parse_float=Decimal)
        if "x-next-cursor" not in answer.headers:
            break
        query["cursor"] = answer.headers["x-next-cursor"]
    assert found == whole
    assert await entries(client, skip=7, limit=3) == whole[7:10]


async def test_the_usage_of_a_user_is_found_unless_the_id_never_was(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    await spend.insert([spend_row(1, user=IN_USE), spend_row(2)], token="one")
    answer = await client.get(f"/v1/users/{quote(IN_USE, safe='')}/usage")
    assert [entry["user_id"] for entry in answer.json()] == [IN_USE]
    assert (await client.get("/v1/users/idle/usage")).json() == []
    for unknown in ("nobody", "%00"):
        answer = await client.get(f"/v1/users/{unknown}/usage")
        assert answer.status_code == 404
    answer = await client.get("/v1/users/nobody/usage")
    assert answer.json()["detail"] == "User with id 'nobody' not found"


async def test_sums_are_exact_and_grouped_as_asked(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    await spend.insert([spend_row(at, billed=True) for at in range(10)], token="one")
    answer = await client.get("/v1/usage/summary", params={"group_by": "endpoint"})
    assert answer.text == (
        '{"object":"list","group_by":"endpoint","data":[{"group":"/v1/chat/completions",'
        '"requests":10,"errors":0,"attempts":10,"input_tokens":110,"output_tokens":220,'
        '"cached_input_tokens":30,"reasoning_tokens":40,"cost":0.000000045}]}'
    )
    for group, first in (("tag:team", "blue"), ("day", "2026-03-04"), ("tier", "TEE")):
        answer = await client.get("/v1/usage/summary", params={"group_by": group})
        assert [line["group"] for line in answer.json()["data"]] == [first]
    answer = await client.get("/v1/usage/summary", params={"user_id": "user-3", "group_by": "user"})
    assert [line["requests"] for line in answer.json()["data"]] == [1]
    assert (await client.get("/v1/usage/summary?group_by=shoe")).status_code == 422


async def test_a_file_has_everything_and_no_formulas(
    spend: SpendTable, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "EXPORT_PAGE", 10)
    await spend.insert([spend_row(at, user="=1+1") for at in range(25)], token="one")
    answer = await client.get("/v1/usage", params={"format": "csv", "limit": 1})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    head, *lines = csv.reader(io.StringIO(answer.text))
    assert tuple(head) == FIELDS
    assert len({line[0] for line in lines}) == 25
    assert {line[1] for line in lines} == {"'=1+1"}
    answer = await client.get("/v1/usage/summary", params={"group_by": "user", "format": "csv"})
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-by-user.csv"'
    assert answer.text.splitlines()[1].startswith("'=1+1,25,")


async def test_a_ledger_that_is_away_is_503(client: httpx.AsyncClient, store: ClickHouse) -> None:
    await store.command("DROP TABLE spend_rows")
    for path in ("/v1/usage", "/v1/usage/summary", "/v1/usage?format=csv"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "store_unavailable"
