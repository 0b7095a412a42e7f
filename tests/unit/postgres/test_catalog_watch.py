import asyncio

import pytest
from structlog.testing import capture_logs

from shared.catalog import Catalog
from shared.document import Compat, Document
from shared.postgres import catalog_watch
from shared.postgres.catalog_watch import CatalogWatch, NoCatalog
from shared.postgres.catalogs import Snapshot

OLD, NEW = Catalog(Document()), Catalog(Document(compat=Compat(accept_stop_string=True)))


class Store:
    """Snapshots by hash, one of them active; can be away, and counts what it is asked for."""

    def __init__(self, *catalogs: Catalog) -> None:
        self.snapshots = {
            each.hash: Snapshot(each.hash, each.to_json().decode()) for each in catalogs
        }
        self.active: str | None = catalogs[0].hash if catalogs else None
        self.away = False
        self.read: list[str] = []

    async def active_hash(self) -> str | None:
        if self.away:
            raise ConnectionRefusedError
        return self.active

    async def by_hash(self, catalog_hash: str) -> Snapshot | None:
        if self.away:
            raise ConnectionRefusedError
        self.read.append(catalog_hash)
        return self.snapshots.get(catalog_hash)


async def test_a_process_follows_the_active_snapshot():
    store = Store(OLD, NEW)
    watch = CatalogWatch(store)
    await watch.start()
    assert watch.current.hash == OLD.hash
    store.active = NEW.hash
    await watch.poll()
    assert watch.current.document.compat.accept_stop_string
    await watch.poll()
    assert store.read == [OLD.hash, NEW.hash]


async def test_without_a_catalog_a_start_says_what_to_do():
    watch = CatalogWatch(Store())
    with pytest.raises(NoCatalog, match="gateway release"):
        await watch.start()
    with pytest.raises(NoCatalog):
        _ = watch.current


async def test_with_postgres_away_the_catalog_stays_and_one_line_is_logged():
    store = Store(OLD, NEW)
    watch = CatalogWatch(store)
    await watch.start()
    store.away, store.active = True, NEW.hash
    with capture_logs() as logs:
        for _ in range(5):
            await watch.poll()
        assert watch.current.hash == OLD.hash
        assert [line["action"] for line in logs] == ["catalog_stale"]
        store.away = False
        await watch.poll()
    assert watch.current.hash == NEW.hash


async def test_a_snapshot_that_cannot_be_read_leaves_the_old_one_in_force():
    store = Store(OLD)
    watch = CatalogWatch(store)
    await watch.start()
    store.snapshots["newer"] = Snapshot("newer", '{"models": 1}')
    store.active = "newer"
    with capture_logs() as logs:
        await watch.poll()
    assert watch.current.hash == OLD.hash
    assert logs[0]["action"] == "catalog_stale"


async def test_a_poll_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(catalog_watch, "ANSWER_SECONDS", 0.02)
    store = Store(OLD)
    watch = CatalogWatch(store)
    await watch.start()

    async def hangs() -> str:
        await asyncio.sleep(3600)
        return ""

    store.active_hash = hangs  # type: ignore[method-assign]
    await watch.poll()
    assert watch.current.hash == OLD.hash


async def test_an_older_snapshot_is_found_by_its_hash_and_kept():
    store = Store(OLD, NEW)
    watch = CatalogWatch(store)
    await watch.start()
    for _ in range(3):
        found = await watch.by_hash(NEW.hash)
        assert found is not None
        assert found.hash == NEW.hash
    assert store.read.count(NEW.hash) == 1
    assert await watch.by_hash("unknown") is None


async def test_only_so_many_snapshots_are_kept(monkeypatch):
    monkeypatch.setattr(catalog_watch, "CATALOGS_KEPT", 3)
    store = Store(OLD)
    for number in range(10):
        store.snapshots[str(number)] = Snapshot(str(number), OLD.to_json().decode())
    watch = CatalogWatch(store)
    for number in range(10):
        await watch.by_hash(str(number))
    assert len(watch._kept) == 3


async def test_a_snapshot_keeps_the_name_it_was_stored_under():
    store = Store()
    store.snapshots["made-by-another-release"] = Snapshot("made-by-another-release", "{}")
    found = await CatalogWatch(store).by_hash("made-by-another-release")
    assert found is not None
    assert found.hash == "made-by-another-release"
