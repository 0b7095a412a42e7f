"""What a key asks of confidential models: told by the management routes, and borne by its jobs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from msgspec.structs import replace

from shared.catalog import Catalog
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.document import Model, ModelProvider
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import make_engine
from tests.integration.queue import Queue
from tests.integration.test_api_process import CATALOG, MASTER, bearer, prepared, started
from tests.integration.test_management_routes import made

WAIT_SECONDS = 10.0
TEE = Model(tier="TEE", providers=[ModelProvider(provider="near_sim", upstream_model="sim/chat")])
MODELS = {
    "tee": TEE,
    "strict": replace(TEE, attestation="require"),
    "silent": replace(TEE, attestation="off"),
}
WITH_TEE = Catalog(replace(CATALOG.document, models={**CATALOG.document.models, **MODELS}))


@dataclass
class Asked:
    """One process, asked over HTTP; there is no worker but the test."""

    client: httpx.AsyncClient
    queue: Queue

    async def attestation(self, key: str, model: str) -> str:
        """Of the job that becomes of a request; its client leaves then."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        asking = asyncio.ensure_future(
            self.client.post("/v1/chat/completions", json=body, headers=bearer(key))
        )
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not (claims := await self.queue.claimed()):
                    assert not asking.done(), asking.result().text
        finally:
            asking.cancel()
        (claim,) = claims
        return claim.header().attestation


@pytest.fixture
async def asked(database_url, valkey_db, clickhouse_url, queue) -> AsyncIterator[Asked]:
    await migrate_clickhouse(clickhouse_url)
    environment = await prepared(database_url, valkey_db, clickhouse_url)
    engine = make_engine(database_url, "test")
    await CatalogStore(engine).apply(WITH_TEE)
    await engine.dispose()
    async with (
        started(environment) as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10, headers=bearer(MASTER)) as client,
    ):
        yield Asked(client, queue)


async def test_a_job_bears_the_stricter_of_its_model_and_its_key(asked):
    plain = (await made(asked.client, "/v1/keys"))["key"]
    for model, mode in (
        ("sim_echo", "off"), ("silent", "off"), ("tee", "record"), ("strict", "require"),
    ):  # fmt: skip
        assert await asked.attestation(plain, model) == mode
    records = (await made(asked.client, "/v1/keys", attestation="record"))["key"]
    for model, mode in (("sim_echo", "off"), ("silent", "record"), ("strict", "require")):
        assert await asked.attestation(records, model) == mode
    requires = (await made(asked.client, "/v1/keys", attestation="require"))["key"]
    for model in ("sim_echo", "silent", "tee"):
        assert await asked.attestation(requires, model) == "require"


async def test_what_a_key_asks_is_shown_and_changed(asked):
    key = await made(asked.client, "/v1/keys", attestation="require")
    path = f"/v1/keys/{key['id']}"
    assert key["attestation"] == (await asked.client.get(path)).json()["attestation"] == "require"
    unchanged = await asked.client.patch(path, json={"key_name": "x"})
    assert unchanged.json()["attestation"] == "require"
    for wish, shown in (("record", "record"), ("default", None)):
        changed = await asked.client.patch(path, json={"attestation": wish})
        assert changed.json()["attestation"] == shown
    refused = await asked.client.patch(path, json={"attestation": "never"})
    assert refused.status_code == 422
    assert (await made(asked.client, "/v1/keys", attestation="default"))["attestation"] is None
