"""Catalog snapshots on a real Postgres."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

import shared
from shared.catalog import Catalog
from shared.document import Compat, Document
from shared.postgres.catalog_watch import CatalogWatch
from shared.postgres.catalogs import CatalogStore
from shared.postgres.tables import catalog_active, catalog_snapshots

DEFAULT = Catalog.from_toml((Path(shared.__file__).parent / "gateway.toml").read_text())
OTHER = Catalog(Document(compat=Compat(accept_stop_string=True)))


async def test_what_is_applied_is_active_and_comes_back_the_same(engine):
    store = CatalogStore(engine)
    assert await store.active() is None
    await store.apply(DEFAULT, note="first")
    found = await store.active()
    assert found is not None
    assert found.hash == DEFAULT.hash
    assert found.to_json() == DEFAULT.to_json()
    price = found.document.models["sim_echo"].price
    assert price is not None
    assert price.cached_input == Decimal("0.25")


async def test_the_last_applied_is_active_and_the_others_are_kept(engine):
    store = CatalogStore(engine)
    for catalog in (DEFAULT, OTHER, DEFAULT, DEFAULT):
        await store.apply(catalog)
    assert await store.active_hash() == DEFAULT.hash
    kept = await store.by_hash(OTHER.hash)
    assert kept is not None
    assert kept.document == OTHER.to_json().decode()
    assert await store.by_hash("unknown") is None
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(catalog_snapshots)) == 2
        assert await connection.scalar(select(func.count()).select_from(catalog_active)) == 1


async def test_two_that_apply_at_once_leave_one_active(engine):
    store = CatalogStore(engine)
    await asyncio.gather(*(store.apply(catalog) for catalog in (DEFAULT, OTHER) * 10))
    assert await store.active_hash() in {DEFAULT.hash, OTHER.hash}


async def test_there_can_be_no_second_active_row(engine):
    await CatalogStore(engine).apply(DEFAULT)
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(
                text("INSERT INTO catalog_active (only_row, hash) VALUES (2, :hash)"),
                {"hash": DEFAULT.hash},
            )


async def test_a_watch_switches_within_its_poll(engine):
    store = CatalogStore(engine)
    await store.apply(DEFAULT)
    watch = CatalogWatch(store)
    await watch.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watch.run())
        await store.apply(OTHER)
        async with asyncio.timeout(3):
            while watch.current.hash != OTHER.hash:  # noqa: ASYNC110 - what is tested is the poll
                await asyncio.sleep(0.05)
        running.cancel()
    older = await watch.by_hash(DEFAULT.hash)
    assert older is not None
    assert older.hash == DEFAULT.hash
