"""Who is billed: what one real process answers, and what it puts into the queue."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from shared.account import RateLimits
from shared.catalog import Catalog
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.document import Auth, Compat, Limits
from shared.job import JobHeader
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import make_engine
from tests.integration.queue import Queue
from tests.integration.test_api_process import CATALOG, MASTER, bearer, prepared, started
from tests.integration.test_management_routes import assert_refused, made

WAIT_SECONDS = 10.0
CHAT: dict[str, Any] = {"model": "sim_echo", "messages": [{"role": "user", "content": "x"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/api/v1/chat/completions": CHAT,
    "/v1/embeddings": {"model": "sim_embed", "input": "x"},
    "/v1/rerank": {"model": "sim_rerank", "query": "x", "documents": ["y"]},
}
FORM = "/v1/audio/transcriptions"
FOREIGN = "'user' field does not match the authenticated API key's user"
MASTER_NEEDS = "When using master key, 'user' field is required in request body"


@dataclass
class Asked:
    """One process, asked over HTTP; there is no worker but the test."""

    client: httpx.AsyncClient
    queue: Queue

    async def key(self, **body: Any) -> str:
        key: str = (await made(self.client, "/v1/keys", **body))["key"]
        return key

    def ask(self, key: str, path: str, user: object) -> Any:
        named = {} if user is None else {"user": user}
        if path != FORM:
            body = {**BODIES[path], **named}
            return self.client.post(path, json=body, headers=bearer(key))
        fields = {"model": "sim_transcribe", **named}
        return self.client.post(
            path, data=fields, files={"file": ("a.wav", b"RIFF")}, headers=bearer(key)
        )

    async def admitted(
        self, key: str, user: object = None, *, path: str = "/v1/chat/completions"
    ) -> JobHeader:
        """The job that becomes of it; its client leaves then."""
        asking = asyncio.ensure_future(self.ask(key, path, user))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not (claims := await self.queue.claimed()):
                    assert not asking.done(), asking.result().text
        finally:
            asking.cancel()
        (claim,) = claims
        return claim.header()

    async def refused(
        self, key: str, user: object, status: int, text: str, *,
        code: str | None, path: str = "/v1/chat/completions",
    ) -> None:  # fmt: skip
        answer = await self.ask(key, path, user)
        assert_refused(answer, status, text)
        assert answer.json()["error"]["code"] == code
        assert await self.queue.claimed() == []


@pytest.fixture
def catalog() -> Catalog:
    return CATALOG


@pytest.fixture
async def asked(database_url, valkey_db, clickhouse_url, queue, catalog) -> AsyncIterator[Asked]:
    await migrate_clickhouse(clickhouse_url)
    environment = await prepared(database_url, valkey_db, clickhouse_url)
    engine = make_engine(database_url, "test")
    await CatalogStore(engine).apply(catalog)
    await engine.dispose()
    async with (
        started(environment) as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10, headers=bearer(MASTER)) as client,
    ):
        yield Asked(client, queue)


@pytest.mark.parametrize("path", [*BODIES, FORM])
async def test_on_every_endpoint_the_user_is_a_label_or_whom_to_bill(asked, path):
    await made(asked.client, "/v1/users", user_id="ann")
    person = await asked.key(user_id="owner")
    header = await asked.admitted(person, "somebody", path=path)
    assert (header.user, header.tags["end_user"]) == ("owner", "somebody")
    assert not header.selector_is_billed

    service = await asked.key(user_id="owner", user_field="bill")
    await asked.refused(service, "ann", 403, FOREIGN, code="foreign_user", path=path)
    for own in (None, "", "owner"):
        assert (await asked.admitted(service, own, path=path)).user == "owner"

    trusted = await asked.key(user_id="owner", user_field="bill", scopes=["bill_others"])
    header = await asked.admitted(trusted, "ann", path=path)
    assert (header.user, header.selector_is_billed) == ("ann", True)
    assert header.key_id is not None
    assert "end_user" not in header.tags

    await asked.refused(MASTER, None, 400, MASTER_NEEDS, code="invalid_value", path=path)
    header = await asked.admitted(MASTER, "ann", path=path)
    assert (header.tenant, header.user, header.key_id) == ("default", "ann", None)


async def test_a_billed_user_must_exist_in_the_tenant_and_not_be_blocked(asked):
    await made(asked.client, "/v1/users", user_id="elsewhere", tenant="another")
    await made(asked.client, "/v1/users", user_id="blocked", blocked=True)
    await made(asked.client, "/v1/users", user_id="deleted")
    await asked.client.delete("/v1/users/deleted")
    trusted = await asked.key(user_id="owner", user_field="bill", scopes=["bill_others"])
    for key in (MASTER, trusted):
        for nobody in ("nobody", "elsewhere", "deleted", "a\0b", "é/:%"):
            text = f"User '{nobody}' not found"
            await asked.refused(key, nobody, 404, text, code="user_not_found")
        await asked.refused(key, "blocked", 403, "User 'blocked' is blocked", code="user_blocked")


async def test_what_is_done_to_a_billed_user_is_seen_within_a_second(asked):
    await made(asked.client, "/v1/users", user_id="ann/é:%")
    assert (await asked.admitted(MASTER, "ann/é:%")).user == "ann/é:%"
    await asked.client.delete("/v1/users/ann%2F%C3%A9%3A%25")
    await asyncio.sleep(1)
    await asked.refused(MASTER, "ann/é:%", 404, "User 'ann/é:%' not found", code="user_not_found")
    await made(asked.client, "/v1/users", user_id="ann/é:%")
    await asyncio.sleep(1)
    assert (await asked.admitted(MASTER, "ann/é:%")).user == "ann/é:%"


async def test_the_body_is_looked_at_before_the_user_and_the_user_before_the_model(asked):
    blocked = await asked.key(user_id="blocked")
    service = await asked.key(user_id="owner", user_field="bill")
    await asked.client.patch("/v1/users/blocked", json={"blocked": True})
    path = "/v1/chat/completions"
    malformed = {**CHAT, "messages": [], "user": "no"}
    unknown_model = {**CHAT, "model": "no-such-model", "user": "no"}
    for key, body, status in (
        (blocked, malformed, 400), (blocked, unknown_model, 403),
        (service, malformed, 400), (service, unknown_model, 403),
        (MASTER, malformed, 400), (MASTER, unknown_model, 404),
    ):  # fmt: skip
        answer = await asked.client.post(path, json=body, headers=bearer(key))
        assert answer.status_code == status, (key, answer.text)
        if status == 404:
            assert answer.json()["error"]["code"] == "user_not_found"
    strange = {**CHAT, "user": 5}
    answer = await asked.client.post(path, json=strange, headers=bearer(MASTER))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user")


class TestWhereTheCatalogSaysBill:
    @pytest.fixture
    def catalog(self) -> Catalog:
        return Catalog(replace(CATALOG.document, compat=Compat(user_field="bill")))

    async def test_new_keys_bill_unless_they_are_made_otherwise(self, asked):
        bills = await asked.key(user_id="owner")
        await asked.refused(bills, "ann", 403, FOREIGN, code="foreign_user")
        labels = await asked.key(user_id="owner", user_field="attribute")
        assert (await asked.admitted(labels, "ann")).user == "owner"


class TestWhereUsersHaveLimits:
    @pytest.fixture
    def catalog(self) -> Catalog:
        limits = Limits(per_user=RateLimits(requests_per_minute=1))
        return Catalog(replace(CATALOG.document, limits=limits))

    async def test_the_billed_user_is_counted_before_it_is_looked_at(self, asked):
        await made(asked.client, "/v1/users", user_id="blocked", blocked=True)
        for user, status in (("nobody", 404), ("blocked", 403)):
            for expected in (status, 429):
                answer = await asked.ask(MASTER, "/v1/chat/completions", user)
                assert answer.status_code == expected, answer.text
        blocked = await asked.key(user_id="mine")
        await asked.client.patch("/v1/users/mine", json={"blocked": True})
        for expected in (403, 429):
            answer = await asked.ask(blocked, "/v1/chat/completions", None)
            assert answer.status_code == expected, answer.text

    async def test_whoever_bills_a_user_uses_that_users_limit_and_not_its_own(self, asked):
        key = await asked.key(user_id="owner", user_field="bill", scopes=["bill_others"])
        for user in ("ann", "bob"):
            await made(asked.client, "/v1/users", user_id=user)
            assert (await asked.admitted(key, user)).user == user
            assert (await asked.ask(MASTER, "/v1/embeddings", user)).status_code == 429
        assert (await asked.admitted(key)).user == "owner"
        # What is refused for its body or its selector is not counted.
        service = await asked.key(user_id="new", user_field="bill")
        await asked.refused(service, "ann", 403, FOREIGN, code="foreign_user")
        assert (await asked.admitted(service)).user == "new"


class TestInOpenMode:
    @pytest.fixture
    def catalog(self) -> Catalog:
        return Catalog(replace(CATALOG.document, auth=Auth(mode="open")))

    async def test_everybody_is_anonymous_and_may_be_blocked_as_such(self, asked):
        header = await asked.admitted("whatever", "ann")
        assert (header.tenant, header.user, header.key_id) == ("anonymous", "anonymous", None)
        assert header.tags["end_user"] == "ann"
        # The master key is not looked at either.
        assert (await asked.admitted(MASTER)).user == "anonymous"
        name = {"user_id": "anonymous", "tenant": "anonymous"}
        await made(asked.client, "/v1/users", **name, blocked=True)
        await asyncio.sleep(1)
        text = "User 'anonymous' is blocked"
        await asked.refused("whatever", None, 403, text, code="user_blocked")
