"""Looks whether a gateway has come to rest: nothing queued, running, or waiting to be stored."""

import asyncio
import time
from typing import Any

import httpx
import redis

from api.cli.ready import Ready
from shared.job import LANES
from shared.valkey.client import ValkeyAway
from shared.valkey.housekeeping import Housekeeper
from shared.valkey.keys import METERING_GROUP, WORKERS_GROUP, ShardKeys
from tests.e2e.ledger import Books

REST_SECONDS = 30.0
POLL_SECONDS = 0.1
QUIET_SECONDS = 2.0
"""No client sends any more: an upload that has not moved for so long never will."""
KEYS = ShardKeys(0)


def unrest(ready: Ready) -> dict[str, object]:
    """What is still going on; empty when the gateway is at rest."""
    with redis.Redis.from_url(ready.valkey_url) as client:
        found: dict[str, object] = {}
        for lane in LANES:
            found[f"lane {lane}"] = client.xlen(KEYS.lane(lane))
            found[f"claims of {lane}"] = _pending(client, KEYS.lane(lane), WORKERS_GROUP)
        found["sealed bytes"] = int(client.get(KEYS.sealed_bytes) or 0)
        found["jobs"] = list(client.scan_iter(KEYS.job("") + b"*", count=1000))
        found["uploads"] = client.hgetall(KEYS.uploads)
        found["spend backlog"] = client.xlen(KEYS.spend)
        found["spend rows counted"] = int(client.get(KEYS.spend_rows) or 0)
        found["spend claims"] = _pending(client, KEYS.spend, METERING_GROUP)
        found["quarantined"] = client.xlen(KEYS.spend_quarantine)
    found["provider calls"] = Books(ready).running_calls()
    return {name: value for name, value in found.items() if value}


def until_still(ready: Ready, seconds: float = REST_SECONDS) -> float:
    """Seconds it took; fails with what is still going on."""
    took, left = rest(ready, seconds)
    assert not left, f"not at rest after {seconds} s: {left}"
    return took


def rest(
    ready: Ready, seconds: float = REST_SECONDS, *, sweeps: bool = False
) -> tuple[float, dict[str, object]]:
    """Seconds it took, and what is still going on after the time. Not from within an event loop.

    `sweeps`: uploads whose API process died go at once, instead of after ten minutes.
    """
    began = time.monotonic()
    while True:
        try:
            if sweeps:
                asyncio.run(_sweep_uploads(ready))
            left = unrest(ready)
        except (redis.RedisError, httpx.TransportError, ValkeyAway) as error:
            left = {"a store": repr(error)}
        took = time.monotonic() - began
        if not left or took >= seconds:
            return took, left
        time.sleep(POLL_SECONDS)


async def _sweep_uploads(ready: Ready) -> None:
    keeper = Housekeeper.connect(ready.valkey_url, [KEYS], "tests")
    try:
        await keeper.sweep_uploads(quiet_seconds=QUIET_SECONDS)
    finally:
        await keeper.close()


def _pending(client: redis.Redis, stream: bytes, group: bytes) -> int:
    try:
        summary: Any = client.xpending(stream, group)
        return int(summary["pending"])
    except redis.ResponseError:
        return 0  # no such group yet
