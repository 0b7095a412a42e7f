"""Catalog snapshots in Postgres: each kept under its hash, one of them active."""

from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.catalog import Catalog
from shared.postgres.tables import catalog_active, catalog_snapshots


class Snapshot(NamedTuple):
    hash: str
    document: str


class CatalogStore:
    """Every method raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def apply(self, catalog: Catalog, *, note: str = "") -> None:
        """Keeps the snapshot and makes it the active one, both or neither. May be repeated."""
        document = catalog.to_json().decode()
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(catalog_snapshots)
                .values(hash=catalog.hash, document=document, note=note)
                .on_conflict_do_nothing()
            )
            await connection.execute(
                insert(catalog_active)
                .values(hash=catalog.hash)
                .on_conflict_do_update(
                    index_elements=[catalog_active.c.only_row],
                    set_={"hash": catalog.hash, "activated_at": func.now()},
                )
            )

    async def active_hash(self) -> str | None:
        async with self._engine.connect() as connection:
            found: str | None = await connection.scalar(select(catalog_active.c.hash))
            return found

    async def by_hash(self, catalog_hash: str) -> Snapshot | None:
        query = select(catalog_snapshots.c.hash, catalog_snapshots.c.document).where(
            catalog_snapshots.c.hash == catalog_hash
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Snapshot(*row)

    async def active(self) -> Catalog | None:
        """The active catalog, under the name it was stored by. Raises CatalogInvalid."""
        active = await self.active_hash()
        snapshot = None if active is None else await self.by_hash(active)
        return None if snapshot is None else read_snapshot(snapshot)


def read_snapshot(snapshot: Snapshot) -> Catalog:
    """Raises CatalogInvalid.

    The stored hash stays its name: a later release fills in defaults of fields that this document
    does not have, so its own hash may differ, and jobs refer to the stored one.
    """
    catalog = Catalog.from_json(snapshot.document)
    catalog.hash = snapshot.hash
    return catalog
