"""The management API of one real process: Otari's bodies, bounds, statuses and texts, and our own."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from shared.account import key_suffix, user_suffix
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clickhouse.spend import SpendTable
from shared.postgres.engine import make_engine
from shared.postgres.windows import Reset, WindowStore
from tests.integration.test_api_process import MASTER, bearer, prepared, started
from tests.spend_rows import spend_row

PREFIXES = ["/v1", "/api/v1"]
KEY_INFO = set("id key_name user_id created_at last_used_at expires_at is_active metadata".split())
USER = set(
    "user_id alias spend budget_id budget_started_at next_budget_reset_at blocked created_at"
    " updated_at metadata".split()
)
SECONDS_TO_TAKE_EFFECT = 1.0


@pytest.fixture
async def environment(database_url, valkey_db, clickhouse_url) -> dict[str, str]:
    await migrate_clickhouse(clickhouse_url)
    return await prepared(database_url, valkey_db, clickhouse_url)


@pytest.fixture
async def client(environment) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        started(environment) as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10, headers=bearer(MASTER)) as client,
    ):
        yield client


async def made(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def status(client: httpx.AsyncClient, key: str) -> int:
    return (await client.get("/v1/models", headers=bearer(key))).status_code


async def becomes(client: httpx.AsyncClient, key: str, expected: int) -> None:
    """Within a second, whatever was cached before."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while await status(client, key) != expected:
        assert loop.time() - began <= SECONDS_TO_TAKE_EFFECT
        await asyncio.sleep(0.02)


def assert_refused(answer: httpx.Response, status: int, text: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"] == text
    assert answer.json()["error"]["message"] == text


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_keys_are_made_listed_changed_and_deleted(client, prefix):
    keys = f"{prefix}/keys"
    expires = "2020-01-01T00:00:00"
    key = await made(client, keys, key_name="ci", metadata={"a": 1.5}, expires_at=expires, other=1)
    assert set(key) >= (KEY_INFO - {"last_used_at"}) | {"key"}
    assert key["user_id"] == f"apikey-{key['id']}"
    assert key["expires_at"] == "2020-01-01T00:00:00+00:00"
    user = (await client.get(f"{prefix}/users/{key['user_id']}")).json()
    assert user["alias"] == "Virtual user for API key: ci"
    assert_refused(await client.get("/v1/models", headers=bearer(key["key"])), 401,
                   "API key has expired")  # fmt: skip

    info = (await client.get(f"{keys}/{key['id']}")).json()
    assert set(info) >= KEY_INFO
    assert "key" not in info
    assert (await client.get(keys)).json() == [info]
    nulls = dict.fromkeys(("key_name", "is_active", "expires_at", "metadata"))
    assert (await client.patch(f"{keys}/{key['id']}", json=nulls)).json() == info
    changed = (await client.patch(f"{keys}/{key['id']}", json={"metadata": {}})).json()
    assert changed == {**info, "metadata": {}}

    gone = await client.delete(f"{keys}/{key['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    text = f"API key with id '{key['id']}' not found"
    for answer in (
        await client.get(f"{keys}/{key['id']}"),
        await client.patch(f"{keys}/{key['id']}", json={}),
        await client.delete(f"{keys}/{key['id']}"),
    ):
        assert_refused(answer, 404, text)
    assert (await client.get(f"{prefix}/users/{key['user_id']}")).status_code == 200
    assert_refused(await client.get(f"{keys}/x"), 404, "API key with id 'x' not found")


async def test_what_is_done_to_a_key_is_seen_within_a_second(client):
    key = await made(client, "/v1/keys", user_id="u1")
    path = f"/v1/keys/{key['id']}"
    assert await status(client, key["key"]) == 200
    for body, expected in (
        ({"is_active": False}, 401),
        ({"is_active": True}, 200),
        ({"ip_allow_list": ["192.0.2.0/24"]}, 403),
        ({"ip_allow_list": ["127.0.0.1", "::1"]}, 200),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 401),
        ({"expires_at": "2099-01-01T00:00:00Z"}, 200),
    ):
        assert (await client.patch(path, json=body)).status_code == 200
        await becomes(client, key["key"], expected)
    await client.patch("/v1/users/u1", json={"blocked": True})
    await becomes(client, key["key"], 403)
    await client.patch("/v1/users/u1", json={"blocked": False})
    await becomes(client, key["key"], 200)
    await client.delete(path)
    await becomes(client, key["key"], 401)


async def test_a_key_of_allowed_models_and_addresses_is_held_to_them(client):
    key = await made(
        client, "/v1/keys", allowed_models=["sim_echo"], ip_allow_list=["10.1.2.3/8"],
        limits={"requests_per_minute": 5}, scopes=["cache"], best_lane="flex", user_field="bill",
    )  # fmt: skip
    assert key["ip_allow_list"] == ["10.0.0.0/8"]
    assert key["limits"] == {
        "requests_per_minute": 5, "tokens_per_minute": None, "concurrent": None
    }  # fmt: skip
    assert (key["scopes"], key["best_lane"], key["user_field"]) == (["cache"], "flex", "bill")
    refused = await client.get("/v1/models", headers=bearer(key["key"]))
    assert refused.json()["error"]["code"] == "address_not_allowed"
    # A header cannot say where somebody comes from.
    forged = {**bearer(key["key"]), "x-forwarded-for": "10.1.2.3", "forwarded": "for=10.1.2.3"}
    assert (await client.get("/v1/models", headers=forged)).status_code == 403
    chat = {"model": "sim_echo", "messages": [{"role": "user", "content": "x"}]}
    refused = await client.post("/v1/chat/completions", json=chat, headers=bearer(key["key"]))
    assert refused.json()["error"]["code"] == "address_not_allowed"
    await client.patch(f"/v1/keys/{key['id']}", json={"ip_allow_list": []})
    await becomes(client, key["key"], 200)
    listed = await client.get("/v1/models", headers=bearer(key["key"]))
    assert [model["id"] for model in listed.json()["data"]] == ["sim_echo"]
    freed = await client.patch(f"/v1/keys/{key['id']}", json={"allowed_models": ["*"]})
    assert freed.json()["allowed_models"] is None


async def test_after_a_rotation_both_secrets_work_until_the_overlap_ends(client):
    key = await made(client, "/v1/keys")
    assert await status(client, key["key"]) == 200
    rotated = await made(client, f"/v1/keys/{key['id']}/rotate", overlap_seconds=2)
    until = datetime.fromisoformat(rotated["previous_valid_until"])
    assert (rotated["id"], rotated["user_id"]) == (key["id"], key["user_id"])
    assert rotated["key"] != key["key"]
    await becomes(client, rotated["key"], 200)
    assert await status(client, key["key"]) == 200
    await asyncio.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()))
    assert await status(client, key["key"]) == 401
    assert await status(client, rotated["key"]) == 200
    # Without a body, as Otari's client asks: the old one ends now.
    again = (await client.post(f"/v1/keys/{key['id']}/rotate")).json()
    await becomes(client, again["key"], 200)
    await becomes(client, rotated["key"], 401)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_users_are_made_changed_deleted_and_revived(client, prefix):
    users = f"{prefix}/users"
    user = await made(client, users, user_id="u1", alias="One", metadata={"a": [None]})
    path = f"{users}/u1"
    assert set(user) >= USER
    assert (user["spend"], user["budget_id"], user["blocked"]) == (0, None, False)
    assert (await client.get(path)).json() == user
    again = await client.post(users, json={"user_id": "u1"})
    assert_refused(again, 409, "User with id 'u1' already exists")
    no_budget = await client.patch(path, json={"budget_id": "b"})
    assert_refused(no_budget, 404, "Budget with id 'b' not found")

    budget = await made(client, f"{prefix}/budgets", budget_duration_sec=60)
    nulls = dict.fromkeys(("alias", "budget_id", "blocked", "metadata"))
    assert (await client.patch(path, json=nulls)).json() == user
    moved = (await client.patch(path, json={"budget_id": budget["budget_id"]})).json()
    begins, ends = moved["budget_started_at"], moved["next_budget_reset_at"]
    assert datetime.fromisoformat(ends) - datetime.fromisoformat(begins) == timedelta(seconds=60)

    key = await made(client, f"{prefix}/keys", user_id="u1")
    assert (await client.delete(path)).status_code == 204
    await becomes(client, key["key"], 401)
    refused = await client.get("/v1/models", headers=bearer(key["key"]))
    assert refused.json()["detail"] == "API key is inactive"
    for answer in (await client.get(path), await client.delete(path)):
        assert_refused(answer, 404, "User with id 'u1' not found")
    assert [one["user_id"] for one in (await client.get(users)).json()] == []
    no_key = await client.post(f"{prefix}/keys", json={"user_id": "u1"})
    assert_refused(no_key, 404, "User 'u1' has been deleted. Recreate via POST /v1/users first.")
    revived = await made(client, users, user_id="u1")
    assert (revived["alias"], revived["budget_id"]) == (None, None)
    assert revived["budget_started_at"] is None
    assert revived["created_at"] == user["created_at"]
    assert await status(client, key["key"]) == 401


async def test_spend_is_the_exact_sum_of_what_was_billed(client, clickhouse_url):
    await made(client, "/v1/users", user_id="u1")
    clickhouse = ClickHouse(clickhouse_url)
    rows = [spend_row(26_000, user="u1", billed=True), spend_row(1, user="u1", billed=False)]
    await SpendTable(clickhouse).insert(rows, token="one")
    await clickhouse.close()
    assert b'"spend":0.000026,' in (await client.get("/v1/users/u1")).content.replace(b"}", b",")
    assert b'"spend":0.000026' in (await client.get("/v1/users")).content
    await client.delete("/v1/users/u1")
    assert (await made(client, "/v1/users", user_id="u1"))["spend"] == 0
    assert (await client.get("/v1/users/u1")).json()["spend"] == 0


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_budgets_are_made_changed_and_deleted_while_in_use(client, prefix):
    budgets = f"{prefix}/budgets"
    answer = await client.post(budgets, content=b'{"max_budget": 0.1000000000, "name": "x"}')
    assert answer.status_code == 422  # no content type
    answer = await client.post(
        budgets, content=b'{"max_budget": 0.3000000000}',
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert b'"max_budget":0.3,"' in answer.content
    budget = answer.json()
    path = f"{budgets}/{budget['budget_id']}"
    assert budget["budget_duration_sec"] is None
    assert datetime.fromisoformat(budget["created_at"]).utcoffset() == timedelta(0)
    changed = (await client.patch(path, json={"budget_duration_sec": 5, "max_budget": None})).json()
    assert (changed["max_budget"], changed["budget_duration_sec"]) == (0.3, 5)
    assert (await client.get(path)).json() == changed
    assert (await client.get(budgets)).json() == [changed]
    await made(client, f"{prefix}/users", user_id="u1", budget_id=budget["budget_id"])
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(f"{prefix}/users/u1")).json()["budget_id"] is None
    text = f"Budget with id '{budget['budget_id']}' not found"
    assert_refused(await client.delete(path), 404, text)
    assert (await made(client, budgets))["max_budget"] is None
    assert (await made(client, budgets, max_budget=0))["max_budget"] == 0


async def test_the_history_of_resets_has_exact_money_and_is_of_a_user_or_a_key(
    client, database_url
):
    budget = await made(client, "/v1/budgets", max_budget=2, budget_duration_sec=60)
    await made(client, "/v1/users", user_id="u1", budget_id=budget["budget_id"])
    key = await made(client, "/v1/keys", user_id="u1", budget_id=budget["budget_id"])
    engine = make_engine(database_url, "test")
    windows, ms = WindowStore(engine), 4_000_000_000_000
    for suffix, nano in ((user_suffix("default", "u1"), 26_000), (key_suffix(key["public_id"]), 1)):
        await windows.reset(
            Reset(
                account=suffix, budget_id=budget["budget_id"], previous_nano=nano, at_ms=ms,
                next_ms=ms + 60_000,
            )
        )  # fmt: skip
    await engine.dispose()
    answer = await client.get("/v1/users/u1/budget-resets")
    assert b'"previous_spend":0.000026,' in answer.content
    assert answer.json() == [{
        "user_id": "u1", "key_id": None, "budget_id": budget["budget_id"],
        "previous_spend": 0.000026, "reset_at": "2096-10-02T07:06:40+00:00",
        "next_reset_at": "2096-10-02T07:07:40+00:00",
    }]  # fmt: skip
    [line] = (await client.get(f"/v1/keys/{key['public_id']}/budget-resets")).json()
    assert (line["key_id"], line["user_id"]) == (key["public_id"], "u1")
    assert (
        b'"previous_spend":0.000000001'
        in (await client.get(f"/v1/keys/{key['id']}/budget-resets")).content
    )
    paged = await client.get("/v1/users/u1/budget-resets", params={"skip": 1, "limit": 1})
    assert paged.json() == []
    moved = (await client.get("/v1/users/u1")).json()
    assert moved["budget_started_at"] == "2096-10-02T07:06:40+00:00"


async def test_a_price_that_was_set_is_listed_and_one_that_was_deleted_is_not(client):
    price = {"input_price_per_million": 0.1, "output_price_per_million": 2}
    before = (await client.get("/v1/models")).json()["data"]
    await made(client, "/v1/pricing", model_key="openai/gpt-new", **price)
    (found,) = [one for one in (await client.get("/v1/models")).json()["data"] if one not in before]
    assert found == (await client.get("/v1/models/openai:gpt-new")).json()
    assert (found["id"], found["owned_by"], found["pricing"]) == ("openai:gpt-new", "openai", price)
    assert (await client.delete("/v1/pricing/openai:gpt-new")).status_code == 204
    assert (await client.get("/v1/models")).json()["data"] == before


@pytest.mark.parametrize("encoded", [True, False])
async def test_prices_are_read_by_keys_with_colons_and_slashes_encoded_or_not(client, encoded):
    def path(key: str) -> str:
        return f"/v1/pricing/{quote(key, safe='') if encoded else key}"

    await made(
        client, "/v1/pricing", model_key="OpenAI/org/model:v1", input_price_per_million=0.1,
        output_price_per_million=0.0000001, effective_at="2026-01-01T00:00:00",
        cache_read_price_per_million=0.05,
        pricing_tiers=[{"min_input_tokens": 1000, "output_price_per_million": 2}],
    )  # fmt: skip
    reader = bearer((await made(client, "/v1/keys"))["key"])
    answer = await client.get(path("openai:org/model:v1"), headers=reader)
    assert b'"output_price_per_million":0.0000001,' in answer.content
    price = answer.json()
    assert price["model_key"] == "openai:org/model:v1"
    assert price["effective_at"] == "2026-01-01T00:00:00+00:00"
    assert price["pricing_tiers"] == [{
        "min_input_tokens": 1000, "input_price_per_million": 0.1, "output_price_per_million": 2,
        "cache_read_price_per_million": 0.05, "cache_write_price_per_million": None,
    }]  # fmt: skip
    for read in ("openai:org/model:v1/history", "openai/org/model:v1/history"):
        history = await client.get(path(read), headers=reader)
        assert history.json() == [price], history.text
    assert (await client.get("/v1/pricing", headers=reader)).json() == [price]
    early = await client.get(
        path("openai:org/model:v1"), params={"as_of": "2025-12-31T23:59:59Z"}, headers=reader
    )
    assert_refused(early, 404, "Pricing for model 'openai:org/model:v1' not found")
    assert (await client.delete(path("openai:org/model:v1"), headers=reader)).status_code == 401
    late = await client.delete(
        path("openai:org/model:v1"), params={"effective_at": "2026-01-02T00:00:00Z"}
    )
    assert_refused(
        late, 404,
        "Pricing for model 'openai:org/model:v1' with effective_at 2026-01-02T00:00:00+00:00"
        " not found",
    )  # fmt: skip
    assert (await client.delete(path("openai/org/model:v1"))).status_code == 204
    assert (await client.get("/v1/pricing")).json() == []


async def test_a_price_is_of_a_model_of_the_catalog_or_of_a_known_provider(client):
    rates = {"input_price_per_million": 1, "output_price_per_million": 2}
    assert (await made(client, "/v1/pricing", model_key="sim_echo", **rates))["model_key"]
    bare = await client.post("/v1/pricing", json={"model_key": "gpt", **rates})
    assert_refused(
        bare, 400,
        "Invalid request: Invalid model format. Expected 'provider:model' or 'provider/model',"
        " got 'gpt'",
    )  # fmt: skip
    stranger = await client.post("/v1/pricing", json={"model_key": "a:b", **rates})
    assert stranger.status_code == 400
    assert stranger.json()["detail"].startswith(
        "'a' is not a supported provider. Supported providers: "
    )


REFUSED = [
    ("POST", "/v1/users", b"{}", ["body", "user_id"], "missing"),
    ("POST", "/v1/users", b'{"user_id":1}', ["body", "user_id"], "string_type"),
    ("POST", "/v1/users", b'{"user_id":"a","blocked":null}', ["body", "blocked"], "bool_type"),
    ("POST", "/v1/users", rb'{"user_id":"a\u0000"}', ["body", "user_id"], "string_pattern_mismatch"),
    ("POST", "/v1/keys", b'{"metadata":null}', ["body", "metadata"], "dict_type"),
    ("POST", "/v1/keys", rb'{"metadata":{"a":["\u0000"]}}', ["body", "metadata"], "value_error"),
    ("POST", "/v1/keys", b'{"metadata":{"a":1e999}}', ["body", "metadata"], "value_error"),
    ("POST", "/v1/keys", b'{"ip_allow_list":["a"]}', ["body", "ip_allow_list", 0], "value_error"),
    ("POST", "/v1/keys", b"", ["body"], "missing"),
    ("POST", "/v1/keys", b"{", ["body", 1], "json_invalid"),
    ("POST", "/v1/budgets", b'{"max_budget":-1}', ["body", "max_budget"], "greater_than_equal"),
    (
        "POST", "/v1/budgets", b'{"budget_duration_sec":0}',
        ["body", "budget_duration_sec"], "greater_than",
    ),
    ("GET", "/v1/keys?limit=0", b"", ["query", "limit"], "greater_than_equal"),
    ("GET", "/v1/users?limit=1001", b"", ["query", "limit"], "less_than_equal"),
    ("GET", "/v1/pricing?skip=-1", b"", ["query", "skip"], "greater_than_equal"),
    ("GET", "/v1/users/%00", b"", ["path", "user_id"], "string_pattern_mismatch"),
]  # fmt: skip


async def test_what_is_wrong_is_422_with_its_place_and_kind(client):
    headers = {"content-type": "application/json"}
    for method, path, body, loc, kind in REFUSED:
        answer = await client.request(method, path, content=body, headers=headers)
        assert answer.status_code == 422, (path, body, answer.text)
        first = answer.json()["detail"][0]
        assert (first["loc"], first["type"]) == (loc, kind), body
        assert set(first) == {"loc", "type", "msg"}


async def test_a_caller_is_checked_before_their_body(client):
    key = (await made(client, "/v1/keys"))["key"]
    for family in ("keys", "users", "budgets", "pricing"):
        for token, text in ((key, "Invalid master key"), ("x", "Invalid master key")):
            headers = {"content-type": "application/json", **bearer(token)}
            answer = await client.post(f"/v1/{family}", content=b"{", headers=headers)
            assert_refused(answer, 401, text)
    assert (await client.put("/v1/users/u1")).headers["allow"] == "DELETE, GET, PATCH"
    assert (await client.put("/v1/pricing/a:b")).headers["allow"] == "DELETE, GET"
    for path in ("/v1/keys", "/v1/users", "/v1/budgets", "/v1/audit"):
        assert (await client.get(path, headers=bearer(key))).status_code == 401
    assert (await client.get("/v1/pricing", headers=bearer("x"))).status_code == 401


async def test_the_audit_log_says_who_did_what_from_where(client):
    key = await made(client, "/v1/keys", key_name="ci", user_id="u1")
    answer = await client.patch(f"/v1/keys/{key['id']}", json={"key_name": "cd"})
    await made(client, f"/v1/keys/{key['id']}/rotate", overlap_seconds=60)
    log = await client.get("/v1/audit")
    assert [one["action"] for one in log.json()] == [
        "key.rotate", "key.update", "key.create", "user.create"
    ]  # fmt: skip
    assert key["key"].rpartition("-")[2] not in log.text
    [entry] = (await client.get("/v1/audit", params={"action": "key.update"})).json()
    assert entry["request_id"] == answer.headers["x-request-id"]
    assert (entry["actor"], entry["address"]) == ("master", "127.0.0.1")
    assert (entry["object_type"], entry["object_id"]) == ("key", key["id"])
    assert (entry["before"]["name"], entry["after"]["name"]) == ("ci", "cd")
    both = {"object_type": "user", "object_id": "u1"}
    assert len((await client.get("/v1/audit", params=both)).json()) == 1
    assert len((await client.get("/v1/audit", params={"skip": 1, "limit": 2})).json()) == 2


async def test_a_price_is_kept_to_its_last_digit(client):
    body = (
        b'{"model_key":"openai:m","input_price_per_million":0.123456789012,'
        b'"output_price_per_million":999998.000000000001}'
    )
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/pricing", content=body, headers=headers)
    price = json.loads(answer.content, parse_float=Decimal)
    assert price["input_price_per_million"] == Decimal("0.123456789012")
    assert price["output_price_per_million"] == Decimal("999998.000000000001")


async def test_with_clickhouse_away_a_user_can_still_be_blocked(environment):
    away = {**environment, "CLICKHOUSE_URL": "http://127.0.0.1:1"}
    async with (
        started(away) as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10, headers=bearer(MASTER)) as client,
    ):
        key = await made(client, "/v1/keys", user_id="u1")
        assert await status(client, key["key"]) == 200
        assert_refused(await client.get("/v1/users/u1"), 500, "Database error")
        answer = await client.patch("/v1/users/u1", json={"blocked": True})
        assert_refused(answer, 500, "Database error")
        await becomes(client, key["key"], 403)
        assert (await client.delete("/v1/users/u1")).status_code == 204


async def test_with_clickhouse_away_keys_are_found_and_changed(environment):
    away = {**environment, "CLICKHOUSE_URL": "http://127.0.0.1:1"}
    async with (
        started(away) as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10, headers=bearer(MASTER)) as client,
    ):
        key = await made(client, "/v1/keys")
        (listed,) = (await client.get("/v1/keys")).json()
        assert (listed["id"], listed["spend"], listed["reserved"]) == (key["id"], None, 0)
        changed = await client.patch(f"/v1/keys/{key['id']}", json={"is_active": False})
        assert (changed.status_code, changed.json()["is_active"]) == (200, False)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_id_of_a_user_may_hold_any_character_raw_or_encoded(client, environment, prefix):
    store = ClickHouse(environment["CLICKHOUSE_URL"])
    ids = [
        "a/b",
        "/a//b/",
        "a:b",
        "100%",
        "%2F",
        "a b?c#d&e=f",
        "ümläut/日本",
        "usage",
        "a/usage/b",
    ]
    for name in ids:
        await SpendTable(store).insert([spend_row(tenant="default", user=name)], token=name)
        paths = [f"{prefix}/users/{quote(name, safe='')}"]
        if not set("%?#") & set(name):
            paths.append(f"{prefix}/users/{name}")
        await made(client, f"{prefix}/users", user_id=name)
        for path in paths:
            assert (await client.get(path)).json()["user_id"] == name
            changed = await client.patch(path, json={"alias": path})
            assert (changed.json()["user_id"], changed.json()["alias"]) == (name, path)
            (entry,) = (await client.get(f"{path}/usage")).json()
            assert entry["user_id"] == name
        assert (await client.delete(paths[-1])).status_code == 204
        assert_refused(await client.get(paths[0]), 404, f"User with id '{name}' not found")
    await store.close()


async def test_usage_behind_an_id_is_the_usage_of_the_user_before_it(client):
    """So a user whose id ends so cannot be read, but everything else can be done with it."""
    await made(client, "/v1/users", user_id="a/usage")
    assert (await client.get("/v1/users/a%2Fusage")).status_code == 404
    assert (await client.get("/v1/users/a/usage/usage")).json() == []
    assert (await client.patch("/v1/users/a/usage", json={"alias": "x"})).json()["alias"] == "x"
    assert (await client.delete("/v1/users/a/usage")).status_code == 204
    assert (await client.get("/v1/users/%00")).status_code == 422
    assert (await client.get("/v1/users/%00/usage")).status_code == 404


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_budgets_of_keys_soft_limits_and_limits_of_users_are_managed(client, prefix):
    budget = await made(client, f"{prefix}/budgets", max_budget=2, soft_budget=1.5)
    assert (budget["max_budget"], budget["soft_budget"]) == (2, 1.5)
    path = f"{prefix}/budgets/{budget['budget_id']}"
    too_soft = await client.patch(path, json={"soft_budget": 2.5})
    assert_refused(too_soft, 400, "soft_budget is more than max_budget")
    user = await made(client, f"{prefix}/users", user_id="u1", limits={"concurrent": 3})
    limits = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent": 3}
    assert user["limits"] == limits
    nulls = {"limits": None, "alias": None}
    assert (await client.patch(f"{prefix}/users/u1", json=nulls)).json() == user
    misspelt = await client.patch(f"{prefix}/users/u1", json={"limits": {"rpm": 3}})
    assert misspelt.status_code == 422
    freed = await client.patch(f"{prefix}/users/u1", json={"limits": {}})
    assert freed.json()["limits"] == dict.fromkeys(limits)

    key = await made(client, f"{prefix}/keys", budget_id=budget["budget_id"])
    assert key["budget_id"] == budget["budget_id"]
    assert (key["budget_started_at"] is None, key["next_budget_reset_at"]) == (False, None)
    info = (await client.get(f"{prefix}/keys/{key['id']}")).json()
    same = (await client.patch(f"{prefix}/keys/{key['id']}", json={"budget_id": None})).json()
    assert same == info
    assert (info["spend"], info["reserved"]) == (0, 0)
    await made(client, f"{prefix}/users", user_id="a/b")
    for path in ("users/u1", "users/a/b", "users/a%2Fb", f"keys/{key['id']}"):
        assert (await client.get(f"{prefix}/{path}/budget-resets")).json() == []
    for path, what in (("users/x", "User"), ("keys/x", "API key")):
        nobody = await client.get(f"{prefix}/{path}/budget-resets")
        assert_refused(nobody, 404, f"{what} with id 'x' not found")
    theirs = await made(client, f"{prefix}/budgets", tenant="theirs")
    text = f"Budget with id '{theirs['budget_id']}' not found"
    for answer in (
        await client.post(f"{prefix}/keys", json={"budget_id": theirs["budget_id"]}),
        await client.patch(f"{prefix}/keys/{key['id']}", json={"budget_id": theirs["budget_id"]}),
    ):
        assert_refused(answer, 404, text)
