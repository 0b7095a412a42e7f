"""The cache against a reader whose every query a test holds in its hand, and a clock that stands."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from api import record_cache
from api.key_cache import KeyCache
from api.record_cache import IN_USE_SECONDS, MAX_ABSENT, MAX_WANTED
from shared.api_key import ApiKey
from shared.caller import Caller
from shared.clock import StillClock
from shared.errors import Overloaded
from shared.postgres.keys import KeyRecord

KEY = ApiKey.mint()
ID = KEY.public_id.encode()


class Keys:
    """A key table that counts its queries, can be slow and can be away."""

    def __init__(self, *records: KeyRecord) -> None:
        self.records = {record.public_id: record for record in records}
        self.queries: list[list[str]] = []
        self.marked: list[set[str]] = []
        self.away = False
        self.gate: asyncio.Event | None = None
        self.arrived = asyncio.Semaphore(0)
        """Counts queries that have reached the reader and were not waited for."""

    async def fetch_many(self, public_ids: Sequence[str]) -> dict[str, KeyRecord]:
        self.queries.append(list(public_ids))
        self.arrived.release()
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise ConnectionRefusedError
        return {name: self.records[name] for name in public_ids if name in self.records}

    async def mark_used(self, public_ids: Iterable[str]) -> None:
        self.marked.append(set(public_ids))


def record_of(key: ApiKey, *, expires_at: float | None = None, is_active: bool = True) -> KeyRecord:
    return KeyRecord(
        public_id=key.public_id,
        secret_sha256=key.secret_sha256,
        caller=Caller(tenant="default", user="u", key_id=key.public_id),
        expires_at=expires_at,
        is_active=is_active,
    )


@asynccontextmanager
async def running(cache: KeyCache) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cache.run())
        try:
            yield
        finally:
            task.cancel()


@pytest.fixture(autouse=True)
def _no_refresh_by_itself(monkeypatch):
    """Tests call `refresh` where they mean it."""
    monkeypatch.setattr(record_cache, "REFRESH_SECONDS", 3600)


async def test_a_key_is_read_once_and_then_known_for_a_second():
    keys, clock = Keys(record_of(KEY)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        assert await cache.get(ID) == record_of(KEY)
        clock.advance(0.99)
        assert cache.cached(ID) == record_of(KEY)
        assert await cache.get(ID) == record_of(KEY)
        assert len(keys.queries) == 1
        clock.advance(0.01)
        assert cache.cached(ID) is None


async def test_the_second_begins_when_the_read_begins():
    keys, clock = Keys(record_of(KEY)), StillClock()
    keys.gate = asyncio.Event()
    cache = KeyCache(keys, clock)
    async with running(cache):
        asking = asyncio.ensure_future(cache.get(ID))
        await keys.arrived.acquire()
        clock.advance(0.6)
        keys.gate.set()
        assert await asking is not None
        clock.advance(0.39)
        assert cache.cached(ID) is not None
        clock.advance(0.02)
        assert cache.cached(ID) is None


async def test_a_refresh_makes_a_busy_key_last_without_a_wait_and_sees_its_revocation():
    keys, clock = Keys(record_of(KEY)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        await cache.get(ID)
        clock.advance(0.5)
        await cache.refresh()
        clock.advance(0.9)
        assert cache.cached(ID) is not None
        keys.records[KEY.public_id] = record_of(KEY, is_active=False)
        await cache.refresh()
        found = cache.cached(ID)
        assert found is not None
        assert not found.is_active
        del keys.records[KEY.public_id]
        await cache.refresh()
        assert cache.cached(ID) is None


async def test_all_keys_in_use_are_refreshed_by_one_query():
    minted = [ApiKey.mint() for _ in range(50)]
    keys, clock = Keys(*map(record_of, minted)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        for key in minted:
            await cache.get(key.public_id.encode())
        before = len(keys.queries)
        await cache.refresh()
        assert len(keys.queries) == before + 1
        assert sorted(keys.queries[-1]) == sorted(key.public_id for key in minted)


async def test_a_key_nobody_uses_is_forgotten_and_the_used_ones_are_marked():
    keys, clock = Keys(record_of(KEY)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        await cache.get(ID)
        await cache.refresh()
        clock.advance(IN_USE_SECONDS)
        await cache.refresh()
        queries = len(keys.queries)
        await cache.refresh()
        assert len(keys.queries) == queries
        await cache.mark()
        await cache.mark()
        assert keys.marked == [{KEY.public_id}]


async def test_misses_that_come_together_share_queries():
    minted = [ApiKey.mint() for _ in range(200)]
    keys, clock = Keys(*map(record_of, minted)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        asked = [key.public_id.encode() for key in minted for _ in range(5)]
        found = await asyncio.gather(*map(cache.get, asked))
        assert all(found)
        assert len(keys.queries) == 1
        assert len(keys.queries[0]) == 200


async def test_an_unknown_key_is_remembered_for_a_second_and_then_asked_again():
    keys, clock = Keys(), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        assert await cache.get(ID) is None
        assert await cache.get(ID) is None
        assert len(keys.queries) == 1
        keys.records[KEY.public_id] = record_of(KEY)
        clock.advance(1.0)
        assert await cache.get(ID) is not None


async def test_strangers_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(record_cache, "MAX_ABSENT", 100)
    cache = KeyCache(Keys(), StillClock())
    async with running(cache):
        for number in range(250):
            assert await cache.get(b"%012d" % number) is None
        assert len(cache._absent) == 100
    assert MAX_ABSENT == 10_000


async def test_too_many_first_time_keys_at_once_are_refused():
    keys, clock = Keys(), StillClock()
    keys.gate = asyncio.Event()
    cache = KeyCache(keys, clock)
    async with running(cache):
        first = asyncio.ensure_future(cache.get(b"first"))
        await keys.arrived.acquire()
        waiting = [
            asyncio.ensure_future(cache.get(b"%012d" % number)) for number in range(MAX_WANTED)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await cache.get(b"one too many")
        keys.gate.set()
        assert await asyncio.gather(first, *waiting) == [None] * (MAX_WANTED + 1)


async def test_with_postgres_away_a_known_key_lives_out_its_second_and_no_longer():
    keys, clock = Keys(record_of(KEY)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        await cache.get(ID)
        keys.away = True
        clock.advance(0.9)
        await cache.refresh()
        assert cache.cached(ID) is not None
        clock.advance(0.1)
        with pytest.raises(Overloaded) as caught:
            await cache.get(ID)
        assert caught.value.code == "store_unavailable"
        keys.away = False
        assert await cache.get(ID) is not None


async def test_a_read_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(record_cache, "VALID_SECONDS", 0.05)
    keys = Keys(record_of(KEY))
    keys.gate = asyncio.Event()
    cache = KeyCache(keys, StillClock())
    async with running(cache):
        with pytest.raises(Overloaded):
            await cache.get(ID)


async def test_nobody_waits_for_ever_when_the_cache_does_not_run(monkeypatch):
    monkeypatch.setattr(record_cache, "ANSWER_SECONDS", 0.05)
    with pytest.raises(Overloaded):
        await KeyCache(Keys(), StillClock()).get(ID)


async def test_a_caller_that_leaves_does_not_spoil_the_read_for_the_others():
    keys, clock = Keys(record_of(KEY)), StillClock()
    keys.gate = asyncio.Event()
    cache = KeyCache(keys, clock)
    async with running(cache):
        leaving = asyncio.ensure_future(cache.get(ID))
        staying = asyncio.ensure_future(cache.get(ID))
        await keys.arrived.acquire()
        leaving.cancel()
        keys.gate.set()
        assert await staying is not None


async def test_those_who_wait_are_refused_when_the_cache_stops():
    keys = Keys(record_of(KEY))
    keys.gate = asyncio.Event()
    cache = KeyCache(keys, StillClock())
    async with running(cache):
        asking = asyncio.ensure_future(cache.get(ID))
        await keys.arrived.acquire()
    with pytest.raises(Overloaded):
        await asking


async def test_a_key_is_asked_for_again_at_the_moment_it_expires():
    clock = StillClock()
    keys = Keys(record_of(KEY, expires_at=clock.now() + 0.3))
    cache = KeyCache(keys, clock)
    async with running(cache):
        await cache.get(ID)
        clock.advance(0.31)
        assert cache.cached(ID) is None
        assert await cache.get(ID) is not None
        assert cache.cached(ID) is not None


async def test_an_older_read_does_not_overwrite_a_newer_one():
    keys, clock = Keys(record_of(KEY)), StillClock()
    cache = KeyCache(keys, clock)
    async with running(cache):
        await cache.get(ID)
        await keys.arrived.acquire()
        keys.gate = asyncio.Event()
        older = asyncio.ensure_future(cache.refresh())
        await keys.arrived.acquire()
        old_gate, keys.gate = keys.gate, None
        clock.advance(0.5)
        await cache.refresh()
        old_gate.set()
        await older
        clock.advance(0.9)
        assert cache.cached(ID) is not None
