"""Which providers may answer a job, in which order, and how long each may take."""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.clock import Clock
from shared.document import Model, ModelProvider
from shared.errors import NotFound, Overloaded
from shared.job import JobHeader
from shared.metrics import Metrics
from shared.postgres.engine import STORE_ERRORS
from shared.price import UNPRICED, Price, price_key
from shared.timeouts import Retries, Timeouts
from shared.variant import Variant
from workers.attestation.target import Target, Targets
from workers.inference.breaker import Breaker
from workers.providers.base import UpstreamProvider
from workers.providers.registry import Credentials, build

POOL_SECONDS = 10.0
WRITE_SECONDS = 60.0
CATALOGS_KEPT = 16
"""Jobs outlive a switch by their own deadline at most; a handful of catalogs is in use at once."""


log = structlog.get_logger()


class Route(msgspec.Struct, frozen=True):
    """One provider of a model, ready to be called."""

    provider: UpstreamProvider
    model: str
    """The catalog's name."""
    tier: str
    upstream_model: str
    price: Price
    """The catalog's."""
    price_key: str
    """Under which a job brings another price."""
    timeouts: Mapping[str, float | None]
    retries: Retries
    breaker: Breaker
    function: str = ""
    variant_name: str = ""
    variant: Variant | None = None
    """Of a function: what it adds to the request."""
    target: Target | None = None
    """Of a confidential model: who is asked to prove what it runs on."""


class Routing:
    """The routes of every model of one catalog. Breakers outlive catalogs: pass them on."""

    def __init__(
        self,
        catalog: Catalog,
        credentials: Credentials,
        *,
        breakers: dict[str, Breaker],
        clock: Clock,
        targets: Targets,
    ) -> None:
        self.catalog = catalog
        self._targets = targets
        self._providers = build(catalog, credentials)
        self._breakers = breakers
        self._clock = clock
        self._known: dict[tuple[str, str | None], tuple[Model, Sequence[Route]]] = {}

    def routes(self, model: str, pinned_provider: str | None) -> tuple[Model, Sequence[Route]]:
        """A model's routes, in the order they are tried. Raises NotFound, or Overloaded."""
        found = self._known.get((model, pinned_provider))
        if found is None:
            found = self._find(model, pinned_provider)
            if model in self.catalog.document.models:  # other names have no bound
                self._known[model, pinned_provider] = found
        return found

    def routes_of(self, header: JobHeader) -> tuple[Model, Sequence[Route]]:
        """A job's routes: its model's, or those of a variant and then of its fallbacks.

        A panel (`workers.inference.panel`) has none of its own. Raises NotFound, or Overloaded.
        """
        if not header.function:
            return self.routes(header.model, header.pinned_provider)
        function = self.catalog.document.functions[header.function]
        names = [header.variant] if header.variant_is_pinned else function.in_order(header.variant)
        routes: list[Route] = []
        failure = None
        for name in names:
            variant = function.variants[name]
            if variant.is_panel:
                continue
            try:
                routes += self.variant_routes(header.function, name, variant)
            except (NotFound, Overloaded) as error:
                failure = failure or error
        if failure is not None and not routes and not function.variants[names[0]].is_panel:
            raise failure
        return self.catalog.document.models[header.model], routes

    def variant_routes(self, function: str, name: str, variant: Variant) -> list[Route]:
        """Raises NotFound, or Overloaded."""
        _, found = self.routes(variant.model, None)
        return [
            _as_variant(route, function=function, name=name, variant=variant) for route in found
        ]

    def label(self, model: str) -> str:
        """The model as a metric label: names outside the catalog are the client's to choose."""
        return model if model in self.catalog.document.models else "unlisted"

    def _find(self, name: str, pinned_provider: str | None) -> tuple[Model, Sequence[Route]]:
        target = self.catalog.resolve(name)
        if target is None:
            raise NotFound(f"The model '{name}' does not exist.", code="model_not_found")
        wanted = [
            route for route in target.model.providers if pinned_provider in (None, route.provider)
        ]
        routes = [
            self._route(target.name, target.model, one)
            for one in wanted
            if one.provider in self._providers
        ]
        if not routes:
            # Nothing that waiting would change: no key in the environment, or switched off.
            raise NotFound(
                f"No provider of the model '{name}' is switched on.", code="model_not_available"
            )
        return target.model, routes

    def _route(self, name: str, model: Model, one: ModelProvider) -> Route:
        provider = self._providers[one.provider]
        times: Timeouts = model.timeouts or provider.settings.timeouts
        breaker = self._breakers.setdefault(
            one.provider, Breaker(provider.settings.breaker, self._clock)
        )
        return Route(
            provider=provider,
            model=name,
            tier=model.tier,
            upstream_model=one.upstream_model,
            price=one.price or model.price or UNPRICED,
            price_key=price_key(one.provider, one.upstream_model),
            timeouts=_timeouts(times),
            retries=provider.settings.retries,
            breaker=breaker,
            target=self._target(name, model, one),
        )

    def _target(self, name: str, model: Model, one: ModelProvider) -> Target | None:
        if model.tier != "TEE":
            return None
        return self._targets.of(
            self.catalog.document,
            provider=one.provider,
            model=name,
            upstream_model=one.upstream_model,
        )


def _as_variant(route: Route, *, function: str, name: str, variant: Variant) -> Route:
    """A model's route as a variant takes it: with its own timeouts and retries, where it has some."""
    return msgspec.structs.replace(
        route,
        function=function,
        variant_name=name,
        variant=variant,
        timeouts=_timeouts(variant.timeouts) if variant.timeouts else route.timeouts,
        retries=variant.retries or route.retries,
    )


def _timeouts(times: Timeouts) -> Mapping[str, float | None]:
    return {
        "connect": times.connect,
        "read": times.first_byte,
        "write": WRITE_SECONDS,
        "pool": POOL_SECONDS,
    }


def backoff(retries: Retries, attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: what the provider asked for, else doubling, full jitter."""
    ceiling = min(retries.max_backoff_seconds, retries.backoff_seconds * 2 ** (attempt - 1))
    return asked if asked is not None else random.uniform(0, ceiling)  # noqa: S311


class Snapshots(Protocol):
    """Finds catalogs by their hash: the process's catalog watch."""

    @property
    def current(self) -> Catalog: ...

    async def by_hash(self, config_hash: str) -> Catalog | None: ...


class RoutingTable:
    """The routings of the catalogs that jobs in flight were admitted under."""

    def __init__(
        self,
        snapshots: Snapshots,
        credentials: Credentials,
        clock: Clock,
        metrics: Metrics,
        targets: Targets,
    ) -> None:
        self._snapshots = snapshots
        self._credentials = credentials
        self._clock = clock
        self._metrics = metrics
        self._targets = targets
        self._breakers: dict[str, Breaker] = {}
        self._routings: dict[str, Routing] = {}

    async def routing(self, config_hash: str) -> Routing | None:
        """None when nobody knows this catalog: the job is given back."""
        found = self._routings.get(config_hash)
        if found is not None:
            return found
        try:
            catalog = await self._snapshots.by_hash(config_hash)
        except (*STORE_ERRORS, CatalogInvalid) as error:
            log.warning("A catalog cannot be loaded", action="catalog_away", error=repr(error))
            catalog = None
        if catalog is None:
            return None
        if len(self._routings) >= CATALOGS_KEPT:
            self._routings.pop(next(iter(self._routings)))
        routing = Routing(
            catalog,
            self._credentials,
            breakers=self._breakers,
            clock=self._clock,
            targets=self._targets,
        )
        self._routings[config_hash] = routing
        return routing

    def provider_types(self, config_hash: str) -> Mapping[str, str]:
        found = self._routings.get(config_hash)
        catalog = found.catalog if found is not None else self._snapshots.current
        if catalog.hash != config_hash:
            return {}
        return {name: one.type for name, one in catalog.document.providers.items()}

    def is_off(self, provider: str) -> bool:
        found = self._snapshots.current.document.providers.get(provider)
        return found is not None and not found.enabled

    def publish(self) -> None:
        for name, breaker in self._breakers.items():
            self._metrics.breaker_open.labels(name).set(breaker.is_open)
