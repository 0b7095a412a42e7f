"""`gateway release`: brings the stores up to this version, once, before its processes start."""

import asyncio
from pathlib import Path
from typing import Annotated

import structlog
import typer

from api.cli.config import load_catalog
from shared import log
from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.clickhouse.client import ClickHouseAway
from shared.clickhouse.migrate import MigrationChanged
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clock import SystemClock
from shared.document import seed_prices
from shared.postgres.audit import GATEWAY
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import Engine
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.migrate import MigrationLocked
from shared.postgres.migrate import migrate as migrate_postgres
from shared.postgres.pricing import PriceStore
from shared.postgres.session import (
    PostgresAway,
    open_postgres,
    release_lock,
    wait_for_postgres,
)
from shared.settings import Settings
from shared.valkey.client import open_client
from shared.valkey.inspect import StoreAway, open_store, require_commands, wait_for_store

STORE_SECONDS = 60.0
"""Compose and clusters start the stores and this at one moment."""
LOCK_SECONDS = 240.0
"""Another release may be migrating a large ledger."""
POLL_SECONDS = 0.25
BOOTSTRAP = "bootstrap"
"""The first key's name, and the member of its metadata that says what it is."""

FAILURES = (
    CatalogInvalid,
    ClickHouseAway,
    MigrationChanged,
    MigrationLocked,
    PostgresAway,
    StoreAway,
    TimeoutError,
)


def add_to(app: typer.Typer) -> None:
    app.command("release")(release)


def release(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The catalog to apply; the built-in one otherwise."
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply the catalog even where one is active already.")
    ] = False,
) -> None:
    """Migrate Postgres and ClickHouse, load the Valkey scripts, apply the first catalog, and
    make the first API key.

    Run it once before the processes of a new version start. It waits for the stores, may be
    repeated, and may be started on two machines at once: one waits for the other. Where there is
    no API key at all, it prints one, unless GATEWAY_BOOTSTRAP_API_KEY says otherwise.
    """
    settings = Settings()
    log.set_up("release", settings.log_level)
    try:
        catalog = load_catalog(config)
        asyncio.run(Release(settings).run(catalog, apply=apply))
    except FAILURES as error:
        typer.echo(f"gateway release: {error}", err=True)
        raise typer.Exit(1) from None


class Release:
    """One release of the stores that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._valkey_url = settings.valkey_url.get_secret_value()
        self._database_url = settings.database_url.get_secret_value()
        self._clickhouse_url = settings.clickhouse_url.get_secret_value()
        self._wants_key = settings.bootstrap_api_key
        self._log = structlog.get_logger()

    async def run(self, catalog: Catalog, *, apply: bool) -> None:
        """Raises one of FAILURES."""
        async with open_postgres(self._database_url, "release") as engine:
            await wait_for_postgres(engine, seconds=STORE_SECONDS)
            async with release_lock(engine, seconds=LOCK_SECONDS):
                await migrate_postgres(engine)
                await self._migrate_clickhouse()
                await self._load_scripts()
                await self._apply(CatalogStore(engine), catalog, apply=apply)
                await self._seed_prices(engine)
                await self._bootstrap(engine)
        self._log.info("the stores are of this version", action="released")

    async def _migrate_clickhouse(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STORE_SECONDS
        while True:
            try:
                applied = await migrate_clickhouse(self._clickhouse_url)
            except ClickHouseAway:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(POLL_SECONDS)
            else:
                self._log.info("ClickHouse is migrated", action="migrated", applied=applied)
                return

    async def _load_scripts(self) -> None:
        """Every connection of ours loads them when it opens; here a broken one is found first."""
        async with open_store(self._valkey_url) as store:
            await wait_for_store(store, seconds=STORE_SECONDS)
            await require_commands(store)
        async with open_client(self._valkey_url, name="release"):
            self._log.info("the scripts are loaded", action="scripts_loaded")

    async def _apply(self, store: CatalogStore, catalog: Catalog, *, apply: bool) -> None:
        active = await store.active_hash()
        if active is None or apply:
            await store.apply(catalog, note="release")
            self._log.info("the catalog is active", action="catalog_applied", hash=catalog.hash)
        elif active != catalog.hash:
            typer.echo(
                f"note: catalog {active} stays active; the one of this start ({catalog.hash}) "
                "differs, and `gateway config apply` would activate it"
            )

    async def _seed_prices(self, engine: Engine) -> None:
        """Those of the active catalog, which need not be the one of this start."""
        active = await CatalogStore(engine).active()
        if active is None:
            return
        prices = PriceStore(engine, SystemClock())
        for key in await prices.seed(seed_prices(active.document), GATEWAY):
            self._log.info("a model has its first price", action="price_seeded", model_key=key)

    async def _bootstrap(self, engine: Engine) -> None:
        """The first key, for whoever reads the terminal: the log must never have it."""
        keys, active = KeyStore(engine, SystemClock()), await CatalogStore(engine).active()
        if not self._wants_key or active is None or await keys.has_any():
            return
        key, info = await keys.create(
            KeyOptions(
                name=BOOTSTRAP,
                metadata={BOOTSTRAP: True},
                user_field=active.document.compat.user_field,
            )
        )
        self._log.info("the first key is made", action="key_bootstrapped", key=info.public_id)
        typer.echo(f"The first API key, shown this once: {key.text}")
