import json

import pytest

from api.drain import Drain
from api.routes.health import Health
from api.store_checks import StoreChecks
from shared.catalog import Catalog
from shared.clock import StillClock
from shared.document import Document

CATALOG = Catalog(Document())


class Watch:
    current = CATALOG


def health(drain: Drain | None = None, **up: bool) -> Health:
    def check_of(is_up: bool):
        async def check() -> bool:
            return is_up

        return check

    stores = {"postgres": True, "clickhouse": True, "valkey": True, **up}
    checks = StoreChecks({name: check_of(is_up) for name, is_up in stores.items()}, StillClock())
    return Health(checks=checks, catalog=Watch(), drain=drain or Drain(), version="1.2.3")


def test_status_shows_the_version_and_the_catalog_in_force():
    assert health().status() == {"status": "ok", "version": "1.2.3", "config_hash": CATALOG.hash}


async def test_health_lists_every_store():
    answer = await health().health()
    assert answer.status_code == 200
    assert json.loads(bytes(answer.body)) == {
        "status": "healthy",
        "gateway": "ok",
        "postgres": "ok",
        "clickhouse": "ok",
        "valkey": "ok",
    }


@pytest.mark.parametrize("store", ["postgres", "clickhouse", "valkey"])
async def test_health_is_503_while_any_store_is_away(store):
    answer = await health(None, **{store: False}).health()
    assert answer.status_code == 503
    body = json.loads(bytes(answer.body))
    assert body["status"] == "unhealthy"
    assert body[store] == "error"
    assert answer.headers["retry-after"] == "1"


async def test_readiness_speaks_as_otari_does():
    answer = await health().readiness()
    assert answer.status_code == 200
    body = json.loads(bytes(answer.body))
    assert (body["status"], body["database"], body["version"]) == ("healthy", "connected", "1.2.3")
    answer = await health(postgres=False).readiness()
    assert answer.status_code == 503
    body = json.loads(bytes(answer.body))
    assert body["detail"]["status"] == "unhealthy"
    assert body["detail"]["database"] == "unavailable"
    assert body["error"]["type"] == "overloaded_error"


async def test_a_process_is_ready_without_clickhouse_but_not_without_valkey():
    assert (await health(clickhouse=False).readiness()).status_code == 200
    assert (await health(valkey=False).readiness()).status_code == 503


async def test_a_draining_process_is_not_ready():
    drain = Drain()
    drain.begin()
    answer = await health(drain).readiness()
    assert answer.status_code == 503
    assert json.loads(bytes(answer.body))["error"]["code"] == "draining"
