"""The cache's entries on a real Valkey: all of them stay within the bound, and the book is right."""

import asyncio

import pytest

from shared.valkey import cache
from shared.valkey.cache import BESIDE_BYTES, CacheEntries
from tests.integration.queue import Queue

POLL_SECONDS = 0.005
SHORT_SECONDS = 0.03


@pytest.fixture
def entries(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> CacheEntries:
    monkeypatch.setattr(cache, "BESIDE_BYTES", 0)  # so that sizes are round
    return CacheEntries(queue.client, queue.keys)


async def put(
    entries: CacheEntries, name: str, size: int = 10, *, ttl: float = 60.0, most: int = 100
) -> bool:
    return await entries.put(name, b"x" * size, ttl_seconds=ttl, max_bytes=most)


async def book(queue: Queue) -> tuple[set[bytes], int]:
    """The index, and the bytes it is said to stand for."""
    members = await queue.client.call(b"ZRANGE", queue.keys.cache_index, 0, -1)
    return set(members), int(await queue.client.call(b"GET", queue.keys.cache_bytes) or 0)


async def gone(entries: CacheEntries, name: str) -> None:
    async with asyncio.timeout(5):
        while await entries.get(name) is not None:  # noqa: ASYNC110  only the server knows
            await asyncio.sleep(POLL_SECONDS)


async def test_an_entry_is_found_by_its_name_and_lives_as_long_as_it_was_told(
    queue: Queue, entries: CacheEntries
) -> None:
    assert await put(entries, "a", ttl=60.0)
    assert await entries.get("a") == b"x" * 10
    assert await entries.get("b") is None
    left = await queue.client.call(b"PTTL", queue.keys.cache_entry("a"))
    assert 59_000 < left <= 60_000
    assert await book(queue) == ({b"a:10"}, 10)


async def test_the_entry_that_would_expire_first_makes_room(
    queue: Queue, entries: CacheEntries
) -> None:
    for name, ttl in (("long", 90.0), ("short", 30.0), ("middle", 60.0)):
        assert await put(entries, name, 30, ttl=ttl)
    assert await put(entries, "new", 40)
    assert await book(queue) == ({b"long:30", b"middle:30", b"new:40"}, 100)
    assert await entries.get("short") is None
    assert await put(entries, "all", 100)
    assert await book(queue) == ({b"all:100"}, 100)
    assert await entries.get("long") is None


async def test_an_entry_over_the_bound_is_refused_and_takes_nobodys_place(
    queue: Queue, entries: CacheEntries
) -> None:
    await put(entries, "a")
    assert not await put(entries, "b", 101)
    assert await book(queue) == ({b"a:10"}, 10)


@pytest.mark.parametrize("size", [10, 11])
async def test_a_name_has_one_entry(queue: Queue, entries: CacheEntries, size: int) -> None:
    await put(entries, "a")
    await put(entries, "a", size)
    assert await book(queue) == ({b"a:%d" % size}, size)
    assert await entries.get("a") == b"x" * size


@pytest.mark.parametrize("size", [10, 11])
async def test_a_name_whose_entry_has_expired_is_counted_once(
    queue: Queue, entries: CacheEntries, size: int
) -> None:
    await put(entries, "a", ttl=SHORT_SECONDS)
    await gone(entries, "a")
    await put(entries, "a", size)
    assert await book(queue) == ({b"a:%d" % size}, size)
    assert await entries.get("a") == b"x" * size


async def test_the_next_entry_forgets_those_that_have_expired(
    queue: Queue, entries: CacheEntries
) -> None:
    for name in ("a", "b"):
        await put(entries, name, ttl=SHORT_SECONDS)
    await gone(entries, "b")
    await put(entries, "c")
    assert await book(queue) == ({b"c:10"}, 10)


async def test_a_smaller_bound_applies_at_once(queue: Queue, entries: CacheEntries) -> None:
    for number in range(10):
        await put(entries, f"e{number}", ttl=60.0 + number)
    assert await put(entries, "new", most=25)
    assert await book(queue) == ({b"e9:10", b"new:10"}, 20)


async def test_a_book_that_lost_its_index_is_begun_anew(
    queue: Queue, entries: CacheEntries
) -> None:
    await put(entries, "a", 100)
    await queue.client.call(b"DEL", queue.keys.cache_index, queue.keys.cache_entry("a"))
    assert await put(entries, "b")
    assert await book(queue) == ({b"b:10"}, 10)


async def test_what_an_entry_takes_beside_its_value_counts(queue: Queue) -> None:
    entries = CacheEntries(queue.client, queue.keys)
    size = 10 + BESIDE_BYTES
    assert not await put(entries, "a", most=size - 1)
    assert await put(entries, "a", most=size)
    assert await put(entries, "b", most=2 * size)
    assert (await book(queue))[1] == 2 * size
    assert await put(entries, "c", most=2 * size)
    assert (await book(queue))[1] == 2 * size


async def test_a_bound_that_was_lowered_far_is_reached_in_steps(
    queue: Queue, entries: CacheEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FORGOTTEN_AT_ONCE", 3)
    for number in range(8):
        await put(entries, f"e{number}", ttl=60.0 + number)
    kept = [await put(entries, "new", most=20) for _ in range(3)]
    assert kept == [False, False, True]
    assert await book(queue) == ({b"e7:10", b"new:10"}, 20)
    assert await entries.get("new") == b"x" * 10
