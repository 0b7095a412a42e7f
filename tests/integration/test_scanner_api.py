"""The Scanner's routes over a real ledger: what is told, to whom, and what never is."""

import json
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from typing_extensions import override

from api import problems
from api.auth import Authenticator
from api.routes import scanner as routes
from api.schemas.scanner import SCANNED
from shared.catalog import Catalog
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.scanner import ScannerTable
from shared.clickhouse.scanner_statistics import ScannerStatistics
from shared.clickhouse.spend import SpendTable
from shared.clock import SystemClock
from shared.document import Document, Scanner
from shared.ids import dashed
from shared.price import Price
from tests.integration.test_scanner import request
from tests.spend_rows import ADMITTED

MASTER = "a-master-key-for-tests"
SECRETS = (
    "someone",
    "a-tenant",
    "sk-public-id",
    "ours-1",
    "a-secret-tag",
    "gpt-oss-120b",
    "c0ffee",
)
"""What a row holds and nobody is told."""


class Clock(SystemClock):
    """Stands at the time of the rows."""

    @override
    def now(self) -> float:
        return (ADMITTED + timedelta(minutes=1)).timestamp()


class Labels:
    """Of requests that have a receipt."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    async def __call__(self, request_ids: Collection[str]) -> Mapping[str, str]:
        return {one: label for one in request_ids if (label := self.known.get(one)) is not None}


@pytest.fixture
async def store(clickhouse_url: str) -> AsyncIterator[ClickHouse]:
    await migrate_clickhouse(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    await store.command("SYSTEM STOP TTL MERGES scanner_sums")
    yield store
    await store.close()


@pytest.fixture
def spend(store: ClickHouse) -> SpendTable:
    return SpendTable(store)


@pytest.fixture
def labels() -> Labels:
    return Labels()


@pytest.fixture
async def client(store: ClickHouse, labels: Labels) -> AsyncIterator[httpx.AsyncClient]:
    catalog = SimpleNamespace(current=Catalog(Document(scanner=Scanner(access="public"))))
    authenticator = Authenticator(
        keys=None,  # type: ignore[arg-type]  # the master key alone is asked for
        catalog=catalog,
        master_key=MASTER,
        clock=SystemClock(),
    )
    scanner = routes.Scanner(
        table=ScannerTable(store),
        statistics=ScannerStatistics(store),
        labels=labels,
        clock=Clock(),
    )
    app = FastAPI(redirect_slashes=False)
    app.include_router(routes.router(scanner, routes.Reader(authenticator, catalog), "/v1"))
    problems.install(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def answer(client: httpx.AsyncClient, path: str, **query: Any) -> Any:
    got = await client.get(f"/v1/scanner/{path}", params=query)
    assert got.status_code == 200, got.text
    assert not [secret for secret in SECRETS if secret in got.text]
    return json.loads(got.content, parse_float=Decimal)


def secretive(number: int = 0, **changes: Any) -> Any:
    usual = {
        "tenant": "a-tenant", "user": "someone", "key_id": "sk-public-id", "provider": "sim",
        "client_request_id": "ours-1", "tags": {"application": "shop", "team": "a-secret-tag"},
    }  # fmt: skip
    return request(number, **usual | changes)


async def test_a_request_in_the_list_has_these_members_and_no_others(
    spend: SpendTable, client: httpx.AsyncClient, labels: Labels
) -> None:
    row = secretive(26_000, ended_at=ADMITTED + timedelta(seconds=27))
    labels.known[row.request_id] = "verified"
    await spend.insert([row], token="one")
    listed = await answer(client, "requests")
    shown = {
        "id": dashed(row.request_id),
        "created_at": "2026-03-04T05:06:33.891234+00:00",
        "status": "completed",
        "model": "sim_echo",
        "creator": "openai",
        "provider": "sim",
        "tier": "TEE",
        "endpoint": "/v1/chat/completions",
        "application": "shop",
        "streamed": True,
        "cached": False,
        "attempt_count": 1,
        "input_tokens": 11,
        "output_tokens": 22,
        "cost": Decimal("0.000026"),
        "latency_ms": 1000,
        "ttft_ms": Decimal("12.5"),
        "attestation": "verified",
    }
    assert listed == {
        "object": "list", "data": [shown], "page_size": 50, "has_more": False, "next": None,
    }  # fmt: skip
    assert list(shown) == SCANNED["ScannerEntry"]["required"]


async def test_a_request_by_its_id_has_its_attempts_with_all_they_used(
    spend: SpendTable, client: httpx.AsyncClient, labels: Labels
) -> None:
    row = secretive(25, attempt=2)
    given = {"request_id": row.request_id, "created_at": row.created_at, "billed": False}
    failed = secretive(0, status="failed", provider="first", error_code="a-secret-tag", **given)
    labels.known[row.request_id] = "pending"
    await spend.insert([failed, row], token="one")
    for text in (dashed(row.request_id), row.request_id, dashed(row.request_id).upper()):
        found = await answer(client, f"requests/{text}")
        assert list(found) == SCANNED["ScannerRequest"]["required"]
        assert (found["status"], found["attempt_count"]) == ("completed", 2)
        assert (found["cost"], found["attestation"]) == (Decimal("0.000000025"), "pending")
    first, second = (await answer(client, f"requests/{row.request_id}"))["attempts"]
    members = SCANNED["ScannerRequest"]["properties"]["attempts"]["items"]["required"]
    assert list(first) == list(second) == members
    assert (first["status"], first["provider"], first["usage"], first["cost"]) == (
        "failed", "first", None, None,
    )  # fmt: skip
    assert second["usage"] == {
        "input_tokens": 11, "output_tokens": 22, "cached_input_tokens": 3, "reasoning_tokens": 4,
        "audio_input_tokens": 5, "audio_output_tokens": 6, "cache_write_tokens": 7, "images": 8,
        "seconds": Decimal("9.125"), "pages": 10, "characters": 11, "tool_calls": 12,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["nothing", "0" * 32, "019a9f3c-5d2e-7abc-8def-0123456789ab", "%00"]
)
async def test_an_id_that_nothing_has_is_404(client: httpx.AsyncClient, text: str) -> None:
    got = await client.get(f"/v1/scanner/requests/{text}")
    assert (got.status_code, got.json()["error"]["code"]) == (404, "request_not_found")


async def test_a_call_that_failed_or_has_no_price_tells_neither_tokens_nor_cost(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    failed = request(
        1, status="failed", billed=False, provider="", tier="", upstream_model="x", tags={}
    )
    unpriced = request(0, price=Price(), cost_usd=Decimal(0))
    await spend.insert([failed, unpriced], token="one")
    first, second = (await answer(client, "requests"))["data"]
    absent = ("creator", "provider", "tier", "application", "input_tokens", "output_tokens", "cost")
    assert {first[name] for name in (*absent, "attestation")} == {None}
    assert (second["cost"], second["input_tokens"]) == (None, 11)


async def test_pages_of_fifty_follow_by_number_and_by_cursor(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    rows = [request(at) for at in range(120)]
    await spend.insert(rows, token="one")
    numbered = [await answer(client, "requests", page=page) for page in (1, 2, 3, 4)]
    assert [len(page["data"]) for page in numbered] == [50, 50, 20, 0]
    assert [page["has_more"] for page in numbered] == [True, True, False, False]
    found, following = [], None
    for page in numbered[:3]:
        again = await answer(client, "requests", **({"cursor": following} if following else {}))
        assert again == page
        found += again["data"]
        following = again["next"]
    assert following is None
    newest_first = [dashed(row.request_id) for row in reversed(rows)]
    assert [one["id"] for one in found] == newest_first


async def test_filters_go_together_and_an_empty_one_means_those_without(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    rows = [
        request(1, tags={"application": "shop"}, model="m1"),
        request(2, tags={"application": "shop"}, model="m2", status="cancelled"),
        request(3, tags={}, model="m2", upstream_model="m2"),
    ]
    await spend.insert(rows, token="one")
    for query, numbers in (
        ({}, [3, 2, 1]),
        ({"application": "shop"}, [2, 1]),
        ({"application": ""}, [3]),
        ({"creator": ""}, [3]),
        ({"creator": "openai", "status": "cancelled"}, [2]),
        ({"model": "m2", "application": "shop"}, [2]),
        ({"q": "M2"}, [3, 2]),
        ({"q": dashed(rows[0].request_id)}, [1]),
        ({"q": "%"}, []),
        ({"q": ""}, [3, 2, 1]),
    ):
        found = await answer(client, "requests", **query)
        ids = [dashed(rows[number - 1].request_id) for number in numbers]
        assert [one["id"] for one in found["data"]] == ids, query


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"page": 0}, "page"),
        ({"page": routes.MAX_PAGE + 1}, "page"),
        ({"page": 10**30}, "page"),
        ({"page": 2, "cursor": f"1-{'0' * 32}"}, "cursor"),
        ({"cursor": "x"}, "cursor"),
        ({"status": "lost"}, "status"),
        ({"my": "perhaps"}, "my"),
        ({"q": "x" * 201}, "q"),
    ],
)
async def test_a_wrong_parameter_is_422_with_its_place(
    client: httpx.AsyncClient, query: dict[str, Any], place: str
) -> None:
    got = await client.get("/v1/scanner/requests", params=query)
    assert got.status_code == 422
    assert got.json()["detail"][0]["loc"] == ["query", place]


async def test_too_deep_a_page_says_how_to_go_on(client: httpx.AsyncClient) -> None:
    got = await client.get("/v1/scanner/requests", params={"page": routes.MAX_PAGE + 1})
    assert "go on by cursor" in got.json()["detail"][0]["msg"]
    assert (await client.get(f"/v1/scanner/requests?page={routes.MAX_PAGE}")).status_code == 200


async def test_my_requests_are_those_of_the_keys_user(
    spend: SpendTable, client: httpx.AsyncClient
) -> None:
    mine = request(1, tenant="default", user="master")
    others = [request(2, tenant="other", user="master"), request(3, tenant="default", user="ann")]
    await spend.insert([mine, *others], token="one")
    got = await client.get("/v1/scanner/requests?my=true")
    assert (got.status_code, got.json()["error"]["type"]) == (401, "authentication_error")
    client.headers["authorization"] = f"Bearer {MASTER}"
    found = await answer(client, "requests", my=True)
    assert [one["id"] for one in found["data"]] == [dashed(mine.request_id)]
    assert len((await answer(client, "requests", my=False))["data"]) == 3


async def test_statistics_are_of_all_and_by_model(
    spend: SpendTable, client: httpx.AsyncClient, store: ClickHouse
) -> None:
    for window in ("24h", "30d"):
        found = await answer(client, "statistics", window=window)
        assert list(found) == SCANNED["ScannerStatistics"]["required"]
        assert (found["requests"], found["cost"], found["as_of"], found["models"]) == (
            0,
            0,
            None,
            [],
        )
    await spend.insert([secretive(at, model=f"m{at % 2}") for at in range(10)], token="one")
    await Rollups(store).refresh(most=10)
    for query in ({}, {"window": "30d"}):
        found = await answer(client, "statistics", **query)
        assert (found["requests"], found["completed"], found["failed"]) == (10, 10, 0)
        assert (found["input_tokens"], found["output_tokens"]) == (110, 220)
        assert found["cost"] == Decimal("0.000000045")
        assert (found["active_models"], found["active_providers"]) == (2, 1)
        assert found["as_of"] is not None
        assert [(one["model"], one["requests"]) for one in found["models"]] == [
            ("m0", 5),
            ("m1", 5),
        ]
        members = SCANNED["ScannerStatistics"]["properties"]["models"]["items"]["required"]
        assert list(found["models"][0]) == members
        assert 980 < found["latency_ms"]["p95"] < 1020
    (first, _) = (await answer(client, "models"))["data"]
    assert first == {
        "model": "m0", "creators": ["openai"], "providers": ["sim"], "tiers": ["TEE"],
        "requests": 5, "last_used_at": "2026-03-04T05:00:00+00:00",
    }  # fmt: skip
    assert (await client.get("/v1/scanner/statistics?window=7d")).status_code == 422


async def test_a_ledger_that_is_away_is_503(client: httpx.AsyncClient, store: ClickHouse) -> None:
    await store.command("DROP VIEW scanner_feed")
    for table in ("scanner_requests", "scanner_sums"):
        await store.command(f"DROP TABLE {table}")
    for path in ("requests", f"requests/{dashed(request().request_id)}", "statistics", "models"):
        got = await client.get(f"/v1/scanner/{path}")
        assert got.status_code == 503
        assert got.json()["error"]["code"] == "store_unavailable"
