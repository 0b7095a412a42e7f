"""Who may call what: every route and method of one real process, asked by everybody there is.

A route that the table does not name fails, and so does a line of the table without a route.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from msgspec.structs import replace

from api.app import create_app
from shared.api_key import PREFIX
from shared.attestation.signing import ReceiptKey
from shared.catalog import Catalog
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clickhouse.spend import SpendTable
from shared.clock import SystemClock
from shared.document import Auth, Metrics, Scanner
from shared.ids import dashed
from shared.postgres.attestation_sessions import SessionStore
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import make_engine
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import TransparencyLog
from shared.settings import Settings
from tests.integration.archived import attestation_session, signed_receipt
from tests.integration.receipts import transcript
from tests.integration.test_api_process import CATALOG, MASTER, bearer, prepared, started
from tests.spend_rows import ADMITTED, id_at, spend_row

# Method, path, who may (`tenant`: keys of the tenant whose it is), and what those get who may: for `{}` as body, for inference of a model that
# nobody has, and for ids that exist. In an order in which nothing is deleted before it is asked for.
TABLE = """
GET    /status                       public 200
HEAD   /status                       public 200
GET    /health                       public 200
HEAD   /health                       public 200
GET    /health/liveness              public 200
HEAD   /health/liveness              public 200
GET    /health/readiness             public 200
HEAD   /health/readiness             public 200
GET    /metrics                      public 200
GET    /docs                         public 200
GET    /docs/files/{name}            public 200
GET    /redoc                        public 200
GET    /openapi.json                 public 200
HEAD   /openapi.json                 public 200
POST   /v1/chat/completions          key    404
POST   /v1/embeddings                key    404
POST   /v1/rerank                    key    404
POST   /v2/rerank                    key    404
POST   /v1/audio/transcriptions      key    404
GET    /v1/models                    key    200
GET    /v1/models/{model_id}         key    200
GET    /v1/pricing                   key    200
GET    /v1/pricing/{model_key}       key    200
GET    /v1/pricing/{model_key}/history key  200
GET    /v1/receipts                  key    200
GET    /v1/receipts/{receipt_id}     tenant 200
GET    /v1/receipts/{receipt_id}/proof tenant 200
GET    /v1/aci/receipts/{receipt_id} tenant 200
GET    /v1/log/head                  key    200
GET    /v1/log/consistency           key    422
GET    /v1/attestation/sessions      key    200
GET    /v1/attestation/sessions/{session_id} key 200
GET    /v1/scanner/requests          key    200
GET    /v1/scanner/requests/{request_id} key 200
GET    /v1/scanner/statistics        key    200
GET    /v1/scanner/models            key    200
POST   /v1/pricing                   master 422
DELETE /v1/pricing/{model_key}       master 204
GET    /v1/usage                     master 200
GET    /v1/usage/summary             master 200
GET    /v1/users/{user_id}/usage     master 200
GET    /v1/users/{user_id}/budget-resets master 200
GET    /v1/audit                     master 200
POST   /v1/keys                      master 200
GET    /v1/keys                      master 200
GET    /v1/keys/{key_id}             master 200
PATCH  /v1/keys/{key_id}             master 200
POST   /v1/keys/{key_id}/rotate      master 200
GET    /v1/keys/{key_id}/budget-resets master 200
DELETE /v1/keys/{key_id}             master 204
POST   /v1/users                     master 422
GET    /v1/users                     master 200
GET    /v1/users/{user_id}           master 200
PATCH  /v1/users/{user_id}           master 200
DELETE /v1/users/{user_id}           master 204
POST   /v1/budgets                   master 200
GET    /v1/budgets                   master 200
GET    /v1/budgets/{budget_id}       master 200
PATCH  /v1/budgets/{budget_id}       master 200
DELETE /v1/budgets/{budget_id}       master 204
"""
INFERENCE: dict[str, Any] = {
    "model": "nobody's", "user": "owner", "messages": [{"role": "user", "content": "x"}],
    "input": "x", "query": "x", "documents": ["x"],
}  # fmt: skip
ASK = ("/completions", "/embeddings", "/rerank")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
KEYLESS = {"none": 401, "garbage": 401}
"""What strangers get where a key is needed."""
REFUSED = {"revoked": 401, "expired": 401, "deleted user": 401, "blocked user": 403, "address": 403}
"""What those get whose key is known and does not work."""
NOT_THEIRS = 404
"""What is another tenant's is not there."""
REFUSALS = ("authentication_error", "permission_error")
PAGES = ("/docs", "/redoc", "/openapi.json", "/docs/files/{name}", "/metrics")
"""They are about the gateway; a user's id may well be a word of theirs."""
LISTS = ("keys", "users", "budgets", "pricing", "usage", "audit", "receipts")


@dataclass(frozen=True)
class Line:
    method: str
    path: str
    who: str
    status: int

    def expected(self, caller: str) -> int:
        """What a caller gets here; who is not allowed for certain is not."""
        if self.who == "public" or caller == "master":
            return self.status
        if self.who == "master":
            return 401
        others = NOT_THEIRS if self.who == "tenant" else self.status
        return {**KEYLESS, **REFUSED, "ordinary": self.status, "other tenant": others}[caller]


def names_of(path: str) -> list[str]:
    """Both names of a route, where it has two."""
    if path.startswith("/health"):
        return [path, f"/api/v1{path}"]
    return [path, f"/api{path}"] if path.startswith(("/v1/", "/v2/")) else [path]


def lines() -> list[Line]:
    rows = [row.split() for row in TABLE.strip().splitlines()]
    return [
        Line(method, name, who, int(status))
        for method, path, who, status in rows
        for name in names_of(path)
    ]


LINES = lines()


def template(path: str) -> str:
    return path.replace(":path}", "}")


@pytest.fixture
def catalog() -> Catalog:
    return CATALOG


@pytest.fixture
async def environment(database_url, valkey_db, clickhouse_url, catalog) -> dict[str, str]:
    await migrate_clickhouse(clickhouse_url)
    environment = await prepared(database_url, valkey_db, clickhouse_url)
    engine = make_engine(database_url, "test")
    await CatalogStore(engine).apply(catalog)
    await engine.dispose()
    return environment


@pytest.fixture
async def client(environment) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        started(environment) as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10) as client,
    ):
        yield client


class World:
    """Everybody who may ask, and what they may ask for: all of it the tenant `default`'s."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.headers = {"none": {}, "garbage": bearer("sk-garbage"), "master": bearer(MASTER)}
        self.ids = {"name": "favicon.png", "model_id": "sim_echo", "model_key": "sim_echo"}

    async def make(self) -> None:
        """What the table needs, and a key for each kind of caller."""
        budget = await self._post("budgets", max_budget=5)
        await self._post("users", user_id="owner", budget_id=budget["budget_id"])
        owned = await self._post("keys", user_id="owner")
        self.ids |= {
            "budget_id": budget["budget_id"], "user_id": "owner", "key_id": owned["id"],
        }  # fmt: skip
        price = {"input_price_per_million": 1, "output_price_per_million": 1}
        await self._post("pricing", model_key="sim_echo", **price)

    async def make_callers(self) -> None:
        await self._key("ordinary")
        await self._key("other tenant", tenant="elsewhere")
        revoked = await self._key("revoked")
        await self._ask("PATCH", f"keys/{revoked['id']}", is_active=False)
        await self._key("expired", expires_at="2020-01-01T00:00:00Z")
        await self._key("blocked user", user_id="blocked")
        await self._ask("PATCH", "users/blocked", blocked=True)
        await self._key("deleted user", user_id="deleted")
        await self._ask("DELETE", "users/deleted")
        await self._key("address", ip_allow_list=["192.0.2.0/24"])

    async def _key(self, caller: str, **body: Any) -> dict[str, Any]:
        key = await self._post("keys", **body)
        self.headers[caller] = bearer(key["key"])
        return key

    async def _post(self, path: str, **body: Any) -> dict[str, Any]:
        made: dict[str, Any] = (await self._ask("POST", path, **body)).json()
        return made

    async def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        answer = await self._client.request(
            method, f"/v1/{path}", json=body, headers=self.headers["master"]
        )
        assert answer.is_success, answer.text
        return answer

    async def seen_by_master(self) -> dict[str, Any]:
        """All there is; but when a key was last used, which asking may change."""
        seen = {name: (await self._ask("GET", name)).json() for name in LISTS}
        for key in seen["keys"]:
            del key["last_used_at"]
        return seen

    def secrets(self) -> list[str]:
        """What nobody but the master key is told."""
        return [self.ids["key_id"], self.ids["budget_id"], self.ids["user_id"], PREFIX]

    async def asks(self, caller: str, method: str, path: str) -> httpx.Response:
        url = path.format(**{name: quote(value, safe="") for name, value in self.ids.items()})
        body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
        if "transcriptions" in path:
            form = {name: INFERENCE[name] for name in ("model", "user")}
            body = {"data": form, "files": {"file": ("a.wav", b"RIFF")}}
        elif path.endswith(ASK):
            body = {"json": INFERENCE}
        return await self._client.request(method, url, headers=self.headers[caller], **body)


@pytest.fixture
async def world(client, environment) -> World:
    world = World(client)
    await world.make()
    await world.make_callers()
    store = ClickHouse(environment["CLICKHOUSE_URL"])
    row = spend_row(tenant="default", user="owner", request_id=id_at(ADMITTED))
    await SpendTable(store).insert([row], token="t")
    await store.close()
    world.ids["request_id"] = dashed(row.request_id)
    world.ids |= await archived(environment["DATABASE_URL"])
    return world


async def archived(database_url: str) -> dict[str, str]:
    """A receipt of the user's that is in the log, and an attestation session."""
    engine, call, key = make_engine(database_url, "test"), transcript(user="owner"), b"k" * 32
    await ReceiptStore(engine).begin([call])
    await ReceiptStore(engine).settle([signed_receipt(call, ReceiptKey(key))])
    await TransparencyLog(engine, ReceiptKey(key), SystemClock()).append(1)
    made = attestation_session()
    await SessionStore(engine).add(made, {})
    await engine.dispose()
    return {"receipt_id": call.receipt_id, "session_id": str(made.session_id)}


def test_the_table_and_the_routes_are_the_same(monkeypatch):
    monkeypatch.setenv("GATEWAY_SEAL_KEYS", "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    app = create_app(Settings())
    routes = {
        (method, template(route.path or ""))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
    }
    assert routes == {(line.method, line.path) for line in LINES}
    document = {
        (method.upper(), template(path))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert document <= routes


async def test_every_route_answers_everybody_as_the_table_says_and_changes_nothing(world):
    before = await world.seen_by_master()
    for caller in (*KEYLESS, *REFUSED, "ordinary", "other tenant"):
        for line in LINES:
            answer = await world.asks(caller, line.method, line.path)
            where = (caller, line.method, line.path, answer.text)
            assert answer.status_code == line.expected(caller), where
            if answer.status_code in (401, 403):
                assert answer.json()["error"]["type"] in REFUSALS, where
            assert "route_not_found" not in answer.text, where
            if line.path not in PAGES:
                assert not [mine for mine in world.secrets() if mine in answer.text], where
    assert await world.seen_by_master() == before


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_the_master_key_may_do_everything(world, prefix):
    others = ("/v1", "/api/v1")
    for line in LINES:
        if line.path.startswith(others) and not line.path.startswith(prefix):
            continue  # they would delete the same things
        answer = await world.asks("master", line.method, line.path)
        assert answer.status_code == line.expected("master"), (line, answer.text)


async def test_what_no_route_is_for_is_refused_whoever_asks(world):
    before = await world.seen_by_master()
    known = {(line.method, line.path) for line in LINES}
    # An id that holds slashes may end in these words: other methods are about such an id.
    words = ("{model_key}/history", "{user_id}/usage", "{user_id}/budget-resets")
    paths = sorted({line.path for line in LINES if not line.path.endswith(words)})
    for caller in ("none", "ordinary", "master"):
        for method, path in set(itertools.product(METHODS, paths)) - known:
            answer = await world.asks(caller, method, path)
            assert answer.status_code == 405, (caller, method, path, answer.text)
        for path in ("/", "/v1", "/v1/", "/v1/nothing", "/v3/rerank", "/api/v1/admin", "/admin"):
            answer = await world.asks(caller, "GET", path)
            assert answer.status_code == 404, (caller, path)
            assert answer.json()["error"]["code"] == "route_not_found"
    assert await world.seen_by_master() == before


class TestWhereMetricsNeedAKey:
    @pytest.fixture
    def catalog(self) -> Catalog:
        return Catalog(replace(CATALOG.document, metrics=Metrics(require_key=True)))

    async def test_they_are_shown_to_every_key_that_works(self, world):
        for caller in (*KEYLESS, *REFUSED, "ordinary", "other tenant", "master"):
            answer = await world.asks(caller, "GET", "/metrics")
            assert answer.status_code == Line("GET", "/metrics", "key", 200).expected(caller)


SCANNED = [line for line in LINES if "/scanner/" in line.path]


class TestWhereTheScannerIsPublic:
    @pytest.fixture
    def catalog(self) -> Catalog:
        return Catalog(replace(CATALOG.document, scanner=Scanner(access="public")))

    async def test_everybody_reads_it_and_their_own_with_a_key_alone(self, world):
        for caller in (*KEYLESS, *REFUSED, "ordinary", "other tenant", "master"):
            for line in SCANNED:
                answer = await world.asks(caller, line.method, line.path)
                assert answer.status_code == line.status, (caller, line, answer.text)
                assert not [mine for mine in world.secrets() if mine in answer.text]
            answer = await world.asks(caller, "GET", "/v1/scanner/requests?my=true")
            expected = Line("GET", "", "key", 200).expected(caller)
            assert answer.status_code == expected, (caller, answer.text)


class TestWhereTheScannerIsOff:
    @pytest.fixture
    def catalog(self) -> Catalog:
        return Catalog(replace(CATALOG.document, scanner=Scanner(access="off")))

    async def test_there_is_nothing_to_be_found(self, world):
        for caller in (*KEYLESS, "ordinary", "master"):
            for line in SCANNED:
                answer = await world.asks(caller, line.method, line.path)
                assert answer.status_code == 404, (caller, line)
                assert answer.json()["error"]["code"] == "scanner_off"


class TestInOpenMode:
    @pytest.fixture
    def catalog(self) -> Catalog:
        closed = Metrics(require_key=True)
        return Catalog(replace(CATALOG.document, auth=Auth(mode="open"), metrics=closed))

    async def test_everybody_may_do_what_keys_may_and_nobody_what_the_master_key_may(self, world):
        before = await world.seen_by_master()
        for caller in (*KEYLESS, *REFUSED, "ordinary", "other tenant"):
            for line in LINES:
                is_masters = line.who == "master" or line.path == "/metrics"
                status = NOT_THEIRS if line.who == "tenant" else line.status
                answer = await world.asks(caller, line.method, line.path)
                where = (caller, line.method, line.path, answer.text)
                assert answer.status_code == (401 if is_masters else status), where
        assert await world.seen_by_master() == before
