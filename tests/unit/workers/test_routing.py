"""Which providers may answer a job, in which order, and how long each may take."""

from collections.abc import Mapping

import httpx
import pytest
from pydantic import SecretStr

from shared.attestation.roots import PRODUCTION
from shared.catalog import Catalog
from shared.clock import StillClock
from shared.errors import NotFound
from shared.metrics import Metrics
from shared.timeouts import Retries
from tests.catalogs import a_catalog
from tests.unit.workers.jobs import a_header
from workers.attestation.fetcher import Fetcher
from workers.attestation.target import Targets
from workers.inference.breaker import Breaker
from workers.inference.routing import CATALOGS_KEPT, Routing, RoutingTable, backoff
from workers.providers.registry import Credentials

PROVIDERS: dict[str, dict[str, object]] = {
    "first": {"timeouts": {"connect": 1, "first_byte": 2, "total": 3}},
    "second": {"base_url": "http://second.invalid"},
    "keyless": {"api_key_env": "NO_KEY"},
    "off": {"enabled": False},
}
MODELS: dict[str, dict[str, object]] = {
    "both": {"providers": ["first", "second"], "price": {"input": "1", "output": "2"}},
    "patient": {"providers": ["first"], "timeouts": {"first_byte": 9}},
    "partly": {"providers": ["keyless", "off", "second"]},
    "dark": {"providers": ["keyless", "off"]},
    "gone": {"providers": ["first"], "active": False},
}


def lookup(name: str | None) -> SecretStr | None:
    return SecretStr("secret") if name == "KEY" else None


TARGETS = Targets(
    Credentials(lookup),
    Fetcher(httpx.MockTransport(lambda _: httpx.Response(500))),
    simulated=PRODUCTION,
)


def catalog(
    providers: Mapping[str, Mapping[str, object]] = PROVIDERS, models: Mapping[str, object] = MODELS
) -> Catalog:
    return a_catalog(providers, models)


def routing(of: Catalog | None = None, breakers: dict[str, Breaker] | None = None) -> Routing:
    return Routing(
        of or catalog(),
        Credentials(lookup),
        breakers={} if breakers is None else breakers,
        clock=StillClock(),
        targets=TARGETS,
    )


def names(model: str, pinned: str | None = None) -> list[str]:
    return [route.provider.name for route in routing().routes(model, pinned)[1]]


def test_routes_come_in_the_models_own_order() -> None:
    assert names("both") == ["first", "second"]


def test_a_pinned_provider_is_the_only_one() -> None:
    assert names("both", "second") == ["second"]


def test_providers_without_a_key_or_switched_off_are_passed_over() -> None:
    assert names("partly") == ["second"]


def test_a_model_none_of_whose_providers_is_on_is_not_available() -> None:
    with pytest.raises(NotFound) as caught:
        routing().routes("dark", None)
    assert caught.value.code == "model_not_available"


@pytest.mark.parametrize("model", ["unknown", "gone", "nobody:x"])
def test_a_model_the_catalog_does_not_resolve_is_not_found(model: str) -> None:
    with pytest.raises(NotFound):
        routing().routes(model, None)


def test_a_name_with_its_provider_needs_no_entry_and_is_no_metric_label() -> None:
    table = routing()
    model, (route,) = table.routes("second:any/thing", None)
    assert (route.provider.name, route.upstream_model, model.tier) == ("second", "any/thing", "")
    assert table.label("second:any/thing") == "unlisted"
    assert table.label("both") == "both"


def test_a_route_knows_its_price_and_its_name_upstream() -> None:
    _, (first, _) = routing().routes("both", None)
    assert first.upstream_model == "both"
    assert first.price == catalog().document.models["both"].price


def test_timeouts_are_the_models_own_else_the_providers() -> None:
    _, (first,) = routing().routes("both", "first")
    assert (first.timeouts["connect"], first.timeouts["read"]) == (1, 2)
    _, (patient,) = routing().routes("patient", None)
    assert (patient.timeouts["connect"], patient.timeouts["read"]) == (5, 9)


def test_a_variant_has_timeouts_and_retries_of_its_own() -> None:
    variants = {
        "own": {"model": "patient", "timeouts": {"first_byte": 7}, "retries": {"attempts": 5}},
        "none": {"model": "patient", "weight": 0},
    }
    of = a_catalog(PROVIDERS, MODELS, functions={"f": {"variants": variants, "fallback": ["none"]}})
    _, (own, none) = routing(of).routes_of(a_header(model="patient", function="f", variant="own"))
    assert (own.timeouts["read"], own.retries.attempts) == (7, 5)
    assert (none.timeouts["read"], none.retries.attempts) == (9, Retries().attempts)


def test_routes_are_found_once_and_share_a_breaker_by_provider() -> None:
    table = routing()
    (first, _), (patient,) = table.routes("both", None)[1], table.routes("patient", None)[1]
    assert first.breaker is patient.breaker
    assert table.routes("both", None) is table.routes("both", None)


def test_a_breaker_outlives_the_catalog() -> None:
    breakers: dict[str, Breaker] = {}
    _, (before,) = routing(breakers=breakers).routes("patient", None)
    _, (after,) = routing(breakers=breakers).routes("patient", None)
    assert before.breaker is after.breaker


def test_pauses_double_up_to_their_ceiling_with_full_jitter() -> None:
    retries = Retries(backoff_seconds=0.1, max_backoff_seconds=0.5)
    for attempt, ceiling in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (9, 0.5)):
        pauses = [backoff(retries, attempt, None) for _ in range(300)]
        assert 0 <= min(pauses) < ceiling / 4
        assert ceiling * 3 / 4 < max(pauses) <= ceiling
    assert backoff(retries, 1, 7.0) == 7.0, "what the provider asked for counts"


class Shelf:
    """Snapshots by their hash; `away` while Postgres is."""

    def __init__(self, *catalogs: Catalog) -> None:
        self.known = {one.hash: one for one in catalogs}
        self.current = catalogs[0]
        self.asked: list[str] = []
        self.away = False

    async def by_hash(self, config_hash: str) -> Catalog | None:
        self.asked.append(config_hash)
        if self.away:
            raise ConnectionRefusedError
        return self.known.get(config_hash)


def table_over(shelf: Shelf) -> RoutingTable:
    return RoutingTable(shelf, Credentials(lookup), StillClock(), Metrics(), TARGETS)


async def test_a_catalog_is_asked_for_once() -> None:
    shelf = Shelf(catalog())
    table = table_over(shelf)
    found = await table.routing(shelf.current.hash)
    assert found is not None
    assert await table.routing(shelf.current.hash) is found
    assert shelf.asked == [shelf.current.hash]


async def test_an_unknown_catalog_and_a_store_that_is_away_give_none_and_are_asked_again() -> None:
    shelf = Shelf(catalog())
    table = table_over(shelf)
    assert await table.routing("0" * 16) is None
    shelf.away = True
    assert await table.routing(shelf.current.hash) is None
    shelf.away = False
    assert await table.routing(shelf.current.hash) is not None


async def test_only_so_many_catalogs_are_kept() -> None:
    catalogs = [
        catalog(models={f"model-{number}": {"providers": ["first"]}})
        for number in range(CATALOGS_KEPT + 1)
    ]
    shelf = Shelf(*catalogs)
    table = table_over(shelf)
    for one in catalogs:
        await table.routing(one.hash)
    await table.routing(catalogs[0].hash)
    await table.routing(catalogs[-1].hash)
    assert shelf.asked == [one.hash for one in [*catalogs, catalogs[0]]]


async def test_a_provider_is_off_as_soon_as_the_catalog_in_force_says_so() -> None:
    shelf = Shelf(catalog())
    table = table_over(shelf)
    assert [table.is_off(name) for name in ("first", "off", "unheard of")] == [False, True, False]
    shelf.current = catalog({**PROVIDERS, "first": {"enabled": False}})
    assert table.is_off("first")


async def test_open_breakers_are_published() -> None:
    shelf = Shelf(catalog())
    metrics = Metrics()
    table = RoutingTable(shelf, Credentials(lookup), StillClock(), metrics, TARGETS)
    found = await table.routing(shelf.current.hash)
    assert found is not None
    _, (first, second) = found.routes("both", None)
    for _ in range(20):
        first.breaker.failed()
    table.publish()
    values = {
        sample.labels["provider"]: sample.value
        for metric in metrics.breaker_open.collect()
        for sample in metric.samples
    }
    assert values == {"first": 1, second.provider.name: 0}
