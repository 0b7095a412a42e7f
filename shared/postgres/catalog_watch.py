"""Keeps a process on the active catalog snapshot, and finds the snapshots older jobs refer to."""

import asyncio
from collections import OrderedDict
from typing import Protocol

import structlog

from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.postgres.catalogs import Snapshot, read_snapshot
from shared.postgres.engine import STORE_ERRORS

POLL_SECONDS = 0.5
ANSWER_SECONDS = 2.0
"""Past it a poll is given up; the catalog in force stays."""
CATALOGS_KEPT = 32
"""Decoded snapshots: the active one and those that jobs still in flight were admitted under."""

log = structlog.get_logger()


class Snapshots(Protocol):
    async def active_hash(self) -> str | None: ...

    async def by_hash(self, catalog_hash: str) -> Snapshot | None: ...


class NoCatalog(Exception):
    """Nothing was released yet."""


class CatalogWatch:
    """`start()` once, then keep `run()` running."""

    def __init__(self, store: Snapshots) -> None:
        self._store = store
        self._kept: OrderedDict[str, Catalog] = OrderedDict()
        self._current: Catalog | None = None
        self._complaint = ""

    @property
    def current(self) -> Catalog:
        """The catalog in force. One read of it is one consistent document."""
        if self._current is None:
            raise NoCatalog("no catalog is active yet: run `gateway release`")
        return self._current

    async def start(self) -> None:
        """Loads the active catalog. Raises NoCatalog, CatalogInvalid, or what the store raises."""
        async with asyncio.timeout(ANSWER_SECONDS * 5):
            await self._follow()
        if self._current is None:
            raise NoCatalog("no catalog is active yet: run `gateway release`")

    async def run(self) -> None:
        """Follows the active snapshot until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.poll()

    async def poll(self) -> None:
        """One look. Whatever fails, the catalog in force stays, and the failure is logged once."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._follow()
        except (*STORE_ERRORS, CatalogInvalid) as error:
            self._complain(f"{type(error).__name__}: {error}")
        else:
            self._complaint = ""

    async def by_hash(self, catalog_hash: str) -> Catalog | None:
        """The snapshot a job was admitted under; None if there is none.

        Raises CatalogInvalid, TimeoutError, or what the store raises.
        """
        kept = self._kept.get(catalog_hash)
        if kept is not None:
            self._kept.move_to_end(catalog_hash)
            return kept
        async with asyncio.timeout(ANSWER_SECONDS):
            snapshot = await self._store.by_hash(catalog_hash)
        return None if snapshot is None else self._keep(read_snapshot(snapshot))

    async def _follow(self) -> None:
        active = await self._store.active_hash()
        if active is None or (self._current is not None and self._current.hash == active):
            return
        catalog = await self.by_hash(active)
        if catalog is not None:
            self._current = catalog
            log.info("The catalog is in force", action="catalog_switched", config_hash=active)

    def _keep(self, catalog: Catalog) -> Catalog:
        self._kept[catalog.hash] = catalog
        if len(self._kept) > CATALOGS_KEPT:
            self._kept.popitem(last=False)
        return catalog

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.warning(
                "The catalog could not be checked; the old one stays",
                action="catalog_stale",
                error=text,
            )
