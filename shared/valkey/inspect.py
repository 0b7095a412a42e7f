"""Looks at a shard from outside, for people: lanes, claims, buried jobs, backlog, live processes.

Reads only. Nothing here is on the request path, so it goes through redis-py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from shared.job import LANES
from shared.valkey.keys import WORKERS_GROUP, ShardKeys
from shared.valkey.processes import ProcessEntry, decode_entry

ANSWER_SECONDS = 5.0
"""A person is waiting; a server that takes longer is reported as away."""
NEWEST_COMMAND = "hsetex"
"""The youngest command the scripts use."""

POLL_SECONDS = 0.1


class StoreAway(Exception):
    """Valkey could not be asked. The message says why, without the address."""


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """One lane at one moment. Ages in seconds; None where there is no such job."""

    lane: str
    waiting: int
    running: int
    lag: int | None
    """The group's own count of entries not yet delivered; None after jobs were cancelled between
    others, when the server cannot know it. `waiting` is exact in any case."""
    oldest_waiting: float | None
    oldest_running: float | None
    claims: dict[str, int]
    """Worker to the jobs it holds."""


class ShardView(msgspec.Struct, frozen=True, kw_only=True):
    """One shard at one moment."""

    shard: int
    lanes: list[LaneView]
    buried: int
    sealed_bytes: int
    spend_backlog: int
    """Spend rows that ClickHouse does not have yet."""
    spend_quarantined: int
    receipt_backlog: int
    """Entries of transcripts whose receipts are not made yet."""
    receipts_quarantined: int


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Redis]:
    """A connection for one block. Raises StoreAway for whatever the block's commands met."""
    try:
        client = Redis.from_url(
            # redis-py knows only the older names of the schemes.
            url.replace("valkey://", "redis://", 1).replace("valkeys://", "rediss://", 1),
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
        )
    except ValueError as error:
        raise StoreAway("VALKEY_URL is not an address of Valkey") from error
    try:
        yield client
    except (RedisError, OSError) as error:
        raise StoreAway(f"Valkey: {error}") from error
    finally:
        await client.aclose()


async def wait_for_store(store: Redis, *, seconds: float) -> None:
    """Returns once the server answers and has read its log. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await _answers(store):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(POLL_SECONDS)


async def require_commands(store: Redis) -> None:
    """Raises StoreAway for a server older than the scripts: they would fail one job at a time."""
    if not await store.command_list(pattern=NEWEST_COMMAND):
        raise StoreAway(f"Valkey: this server has no {NEWEST_COMMAND}; Valkey 9 has")


async def _answers(store: Redis) -> bool:
    try:
        await store.ping()
    except (RedisError, OSError):
        return False
    return True


async def view_shard(store: Redis, keys: ShardKeys) -> ShardView:
    now = await _server_time(store)
    async with store.pipeline(transaction=False) as pipeline:
        pipeline.xlen(keys.buried)
        pipeline.get(keys.sealed_bytes)
        pipeline.get(keys.spend_rows)
        pipeline.xlen(keys.spend_quarantine)
        pipeline.xlen(keys.receipts)
        pipeline.xlen(keys.receipts_quarantine)
        buried, sealed, rows, quarantined, receipts, unread = await pipeline.execute()
    return ShardView(
        shard=keys.shard,
        lanes=[await _view_lane(store, keys, lane, now) for lane in LANES],
        buried=buried,
        sealed_bytes=int(sealed or 0),
        spend_backlog=int(rows or 0),
        spend_quarantined=quarantined,
        receipt_backlog=receipts,
        receipts_quarantined=unread,
    )


async def live_processes(store: Redis) -> dict[str, ProcessEntry]:
    """Every process that renewed its entry lately, by its id."""
    now = await _server_time(store)
    async with store.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(ShardKeys(0).processes.decode())
        (entries,) = await pipeline.execute()
    processes = {name.decode(): decode_entry(value) for name, value in entries.items()}
    return {name: entry for name, entry in processes.items() if not entry.is_silent(now)}


async def _view_lane(store: Redis, keys: ShardKeys, lane: str, now: float) -> LaneView:
    stream = keys.lane(lane)
    length = await store.xlen(stream)
    group = await _group(store, stream, WORKERS_GROUP)
    delivered_up_to = group["last-delivered-id"] if group else b"0-0"
    pending: dict[str, Any] = (
        await store.xpending(stream, WORKERS_GROUP) if group else {"pending": 0}
    )
    # `(`: later than the last entry any worker was given.
    later: Any = b"(" + delivered_up_to
    first = await store.xrange(stream, min=later, count=1)
    running = pending["pending"]
    return LaneView(
        lane=lane,
        # A job leaves the stream when it ends, so what is there and not held is waiting.
        waiting=max(0, length - running),
        running=running,
        lag=group["lag"] if group else length,
        oldest_waiting=_age(first[0][0], now) if first else None,
        oldest_running=_age(pending["min"], now) if running else None,
        claims=_claims(pending),
    )


def _claims(pending: dict[str, Any]) -> dict[str, int]:
    return {held["name"].decode(): held["pending"] for held in pending.get("consumers") or ()}


async def _group(store: Redis, stream: bytes, name: bytes) -> dict[str, Any] | None:
    try:
        groups = await store.xinfo_groups(stream)
    except ResponseError as error:
        # Before the first job there is no stream; the server has no error word for this case.
        if "no such key" in str(error).lower():
            return None
        raise
    return next((group for group in groups if group["name"] == name), None)


def _age(entry: bytes, now: float) -> float:
    """Stream entry ids begin with the server's clock in milliseconds."""
    return max(0.0, now - int(entry.partition(b"-")[0]) / 1000)


async def _server_time(store: Redis) -> float:
    """The server's clock, because entry ids carry it; the local one may differ."""
    seconds, micros = await store.time()
    return float(seconds + micros / 1e6)
