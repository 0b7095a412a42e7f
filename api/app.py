"""Wires the API: its services from the settings, its routes, and the outermost layer around them."""

import gc
import importlib.metadata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from api import openapi, problems
from api.access_log import AccessLog
from api.admit import Gate
from api.attested import Attested
from api.auth import Authenticator
from api.billing import Billing
from api.counted_spend import CountedSpend
from api.drain import Drain
from api.key_cache import KeyCache
from api.management import Management
from api.middleware import Edge, hot_paths
from api.price_book import PriceBook
from api.providers import Availability
from api.receipt_archive import Archive
from api.relay import Relay
from api.routes import (
    attestation,
    audit,
    budgets,
    health,
    keys,
    metrics,
    models,
    pages,
    pricing,
    receipts,
    scanner,
    transparency,
    usage,
    users,
)
from api.routes.endpoints import DOCUMENTS, FORMS
from api.routes.inference import Collaborators, Inference
from api.routes.uploads import UploadInference
from api.services import Services
from api.store_checks import Check, StoreChecks
from api.upload import Uploads
from api.user_cache import UserCache
from shared.attestation.signing import receipt_key
from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.scanner import ScannerTable
from shared.clickhouse.scanner_statistics import ScannerStatistics
from shared.clickhouse.usage import UsageTable
from shared.clickhouse.usage_summary import UsageSummary
from shared.clickhouse.user_spend import UserSpend
from shared.clock import SystemClock
from shared.ids import new_id
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import SessionStore
from shared.postgres.audit import AuditLog
from shared.postgres.budgets import BudgetStore
from shared.postgres.catalog_watch import CatalogWatch
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import is_up, make_engine
from shared.postgres.keys import KeyStore
from shared.postgres.pricing import PriceStore
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import LogReader
from shared.postgres.users import UserStore
from shared.postgres.windows import WindowStore
from shared.seal import Seal
from shared.settings import KNOWN_DEFAULT_MASTER_KEYS, Settings
from shared.valkey.process_metrics import ProcessMetrics

DISTRIBUTION = "ollm-gateway"
GC_ALLOCATIONS = 50_000
"""Requests are freed by their counts; looking for cycles every 700 objects finds next to none."""
API_PREFIXES = ("/v1", "/api/v1")

log = structlog.get_logger()


class MasterKeyUnsafe(Exception):
    """`auth.mode = required` with a master key that is empty or known to everybody."""


def create_app(
    settings: Settings, *, drain: Drain | None = None, access_log: float = 0.0
) -> FastAPI:
    """One process's application. Nothing is connected before its lifespan starts.

    `drain` is the server's flag; `access_log` the share of requests that get a log line. Raises
    ValueError where the settings hold no seal key.
    """
    services = build_services(settings, drain=drain or Drain(), access_log=access_log)
    hot = hot_routes(services)
    edge = partial(
        Edge,
        hot=hot,
        uploads=frozenset(known for path in FORMS for known in hot_paths(path)),
        catalog=services.catalogs,
        metrics=services.metrics,
        drain=services.drain,
        access_log=services.access_log,
    )
    check = partial(check_master_key, services, settings.master_key.get_secret_value())
    app = GatewayApp(
        edge,
        title=DISTRIBUTION,
        version=services.version,
        lifespan=partial(_lifespan, services, check),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    # First in the router too, for what is not a POST: 405 comes from there.
    app.router.routes[:0] = [Route(path, to, methods=["POST"]) for path, to in hot.items()]
    _include_routers(app, services)
    problems.install(app)
    app.openapi = openapi.document(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def hot_routes(services: Services) -> dict[str, ASGIApp]:
    """The inference routes: raw ASGI, by exact path, under both of their names."""
    shared = Collaborators(
        authenticator=services.authenticator,
        billing=services.billing,
        catalogs=services.catalogs,
        prices=services.prices,
        gate=services.gate,
        relay=services.relay,
        clock=services.clock,
        metrics=services.metrics,
    )
    routes: dict[str, ASGIApp] = {}
    for path, (endpoint, parse) in DOCUMENTS.items():
        routes |= dict.fromkeys(hot_paths(path), Inference(endpoint, shared, parse))
    for path, endpoint in FORMS.items():
        upload = UploadInference(endpoint, shared, services.uploads)
        routes |= dict.fromkeys(hot_paths(path), upload)
    return routes


def build_services(settings: Settings, *, drain: Drain, access_log: float) -> Services:
    """Builds; connects to nothing."""
    clock, own_metrics, process = SystemClock(), Metrics(), new_id()
    valkey_url = settings.valkey_url.get_secret_value()
    engine = make_engine(settings.database_url.get_secret_value(), "api")
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value())
    catalogs, key_store = CatalogWatch(CatalogStore(engine)), KeyStore(engine, clock)
    key_cache, user_store = KeyCache(key_store, clock), UserStore(engine, clock)
    user_cache, price_store = UserCache(user_store, clock), PriceStore(engine, clock)
    price_book = PriceBook(price_store, clock)
    authenticator = Authenticator(
        keys=key_cache,
        catalog=catalogs,
        master_key=settings.master_key.get_secret_value(),
        clock=clock,
    )
    process_metrics = ProcessMetrics(
        url=valkey_url, role="api", process=process, metrics=own_metrics,
        shards=settings.shards, clock=clock,
    )  # fmt: skip
    seal = Seal(settings.seal_key_bytes())
    gate = Gate(
        url=valkey_url, process=process, shards=settings.shards,
        seal=seal, clock=clock, metrics=own_metrics,
        inbox_lease_seconds=settings.inbox_lease_seconds, ledger=UserSpend(clickhouse),
    )  # fmt: skip
    checks: dict[str, Check] = {
        "postgres": partial(is_up, engine),
        "clickhouse": partial(_answers, clickhouse),
        "valkey": process_metrics.is_up,
    }
    return Services(
        process=process,
        version=read_version(),
        clock=clock,
        metrics=own_metrics,
        drain=drain,
        engine=engine,
        clickhouse=clickhouse,
        catalogs=catalogs,
        prices=price_book,
        keys=key_store,
        key_cache=key_cache,
        user_cache=user_cache,
        authenticator=authenticator,
        billing=Billing(user_cache),
        management=Management(
            authenticator=authenticator,
            catalog=catalogs,
            keys=key_store,
            users=user_store,
            budgets=BudgetStore(engine, clock),
            prices=price_store,
            price_book=price_book,
            audit=AuditLog(engine),
            spend=CountedSpend(gate.queue_of, UserSpend(clickhouse)),
            windows=WindowStore(engine),
        ),
        attested=Attested(
            authenticator=authenticator,
            catalog=catalogs,
            archive=Archive(ReceiptStore(engine), LogReader(engine)),
            receipts=ReceiptStore(engine),
            sessions=SessionStore(engine),
            key=receipt_key(settings.receipt_seeds(), settings.seal_key_bytes()),
        ),
        availability=Availability(settings.secret),
        checks=StoreChecks(checks, clock),
        process_metrics=process_metrics,
        access_log=AccessLog(access_log),
        gate=gate,
        relay=Relay(gate, clock, own_metrics),
        uploads=Uploads(gate, seal),
    )


class GatewayApp(FastAPI):
    """FastAPI inside our outermost layer."""

    def __init__(self, edge: Callable[[ASGIApp], ASGIApp], **options: Any) -> None:
        self._edge = edge
        super().__init__(**options)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self  # what Starlette does here, without the two calls in between
        await self.middleware_stack(scope, receive, send)

    @override
    def build_middleware_stack(self) -> ASGIApp:
        # Outside FastAPI's own error layer, so that nothing answers, or fails, without it.
        return self._edge(super().build_middleware_stack())


def check_master_key(services: Services, master_key: str) -> None:
    """Raises MasterKeyUnsafe. In open mode an empty key is allowed: nothing then matches it."""
    required = services.catalogs.current.document.auth.mode == "required"
    if required and not master_key:
        raise MasterKeyUnsafe("GATEWAY_MASTER_KEY is empty: set it, or auth.mode = 'open'")
    if master_key.lower() in KNOWN_DEFAULT_MASTER_KEYS:
        raise MasterKeyUnsafe("GATEWAY_MASTER_KEY is a known default: choose another")


def read_version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "0+source"  # run from a checkout that was never installed


@asynccontextmanager
async def _lifespan(
    services: Services, check: Callable[[], None], _app: FastAPI
) -> AsyncIterator[None]:
    try:
        async with services.running():
            check()
            gc.collect()
            gc.freeze()  # what is alive now lives on; the collector need not look at it again
            gc.set_threshold(GC_ALLOCATIONS)
            yield
    except BaseException:
        # The server would go on without its loops, and every request would hang.
        services.drain.fail()
        log.exception("The API process cannot go on", action="api_failed")
        raise


def _include_routers(app: FastAPI, services: Services) -> None:
    well = health.Health(
        checks=services.checks,
        catalog=services.catalogs,
        drain=services.drain,
        version=services.version,
    )
    listed = models.Models(
        catalog=services.catalogs,
        availability=services.availability,
        prices=services.prices,
        clock=services.clock,
    )
    app.include_router(pages.router(DISTRIBUTION))
    app.include_router(health.status_router(well))
    for prefix in ("", "/api/v1"):
        app.include_router(health.router(well, prefix))
    app.include_router(
        metrics.router(
            collect=services.process_metrics.collect,
            catalog=services.catalogs,
            authenticator=services.authenticator,
        )
    )
    ledger = usage.Usage(
        table=UsageTable(services.clickhouse),
        summary=UsageSummary(services.clickhouse),
        users=services.management.users,
        keys=services.keys,
    )
    scanned = scanner.Scanner(
        table=ScannerTable(services.clickhouse),
        statistics=ScannerStatistics(services.clickhouse),
        labels=services.attested.receipts.labels,
        clock=services.clock,
    )
    reader = scanner.Reader(services.authenticator, services.catalogs)
    for prefix in API_PREFIXES:
        app.include_router(scanner.router(scanned, reader, prefix))
        app.include_router(usage.router(ledger, services.authenticator, prefix))
        app.include_router(models.router(listed, services.authenticator, prefix))
        for attested in (receipts, transparency, attestation):
            app.include_router(attested.router(services.attested, prefix))
        for family in (keys, users, budgets, pricing, audit):
            app.include_router(family.router(services.management, prefix))


async def _answers(clickhouse: ClickHouse) -> bool:
    try:
        await clickhouse.query("SELECT 1")
    except ClickHouseAway:
        return False
    return True
