"""What `gateway queue` and the health checks see of a real Valkey."""

from typing import Any

import pytest
import redis

from shared.spend import encode_row
from shared.valkey import inspect
from shared.valkey.inspect import (
    StoreAway,
    live_processes,
    open_store,
    require_commands,
    view_shard,
)
from shared.valkey.keys import METERING_GROUP, WORKERS_GROUP, ShardKeys
from shared.valkey.processes import SILENT_SECONDS, own_entry
from shared.valkey.spend import SpendStream
from tests.spend_rows import spend_row

KEYS = ShardKeys(0)
WORKER = "0123456789abcdef"


@pytest.fixture
def store(valkey_db: str):
    with redis.Redis.from_url(valkey_db) as client:
        yield client


async def test_an_empty_store_has_four_empty_lanes(valkey_db: str):
    async with open_store(valkey_db) as client:
        view = await view_shard(client, KEYS)
    assert [(lane.lane, lane.waiting, lane.running) for lane in view.lanes] == [
        (lane, 0, 0) for lane in ("priority", "default", "flex", "batch")
    ]
    assert (view.buried, view.spend_backlog, view.sealed_bytes) == (0, 0, 0)


async def test_a_server_too_old_for_the_scripts_is_told_apart(
    valkey_db: str, monkeypatch: pytest.MonkeyPatch
):
    async with open_store(valkey_db) as client:
        await require_commands(client)
        monkeypatch.setattr(inspect, "NEWEST_COMMAND", "a-later-command")
        with pytest.raises(StoreAway, match="this server has no a-later-command"):
            await require_commands(client)


async def test_waiting_running_and_claims_are_told_apart(valkey_db: str, store: Any):
    lane = KEYS.lane("default")
    store.xgroup_create(lane, WORKERS_GROUP, "0", mkstream=True)
    entries = [store.xadd(lane, {"r": str(n)}) for n in range(5)]
    store.xreadgroup(WORKERS_GROUP, WORKER, {lane: ">"}, count=3)
    # A job that has ended leaves the stream and the claims.
    store.xack(lane, WORKERS_GROUP, entries[0])
    store.xdel(lane, entries[0])
    async with open_store(valkey_db) as client:
        view = (await view_shard(client, KEYS)).lanes[1]
    assert (view.waiting, view.running, view.claims) == (2, 2, {WORKER: 2})
    assert view.oldest_waiting is not None
    assert 0 <= view.oldest_waiting < 10
    assert view.oldest_running is not None


async def test_waiting_is_right_before_any_worker_has_come(valkey_db: str, store: Any):
    store.xadd(KEYS.lane("flex"), {"r": "1"})
    async with open_store(valkey_db) as client:
        view = (await view_shard(client, KEYS)).lanes[2]
    assert (view.waiting, view.running, view.lag) == (1, 0, 1)


async def test_the_receipt_backlog_counts_until_receipts_are_made(valkey_db: str, store: Any):
    entry = store.xadd(KEYS.receipts, {"t": b"a transcript"})
    store.xadd(KEYS.receipts_quarantine, {"r": b"not one"})
    async with open_store(valkey_db) as client:
        view = await view_shard(client, KEYS)
        assert (view.receipt_backlog, view.receipts_quarantined) == (1, 1)
        store.xdel(KEYS.receipts, entry)
        assert (await view_shard(client, KEYS)).receipt_backlog == 0


async def test_the_spend_backlog_counts_until_rows_are_acknowledged(valkey_db: str, store: Any):
    store.xgroup_create(KEYS.spend, METERING_GROUP, "0", mkstream=True)
    rows = [encode_row(spend_row(n)) for n in range(4)]
    for row in rows:
        store.xadd(KEYS.spend, {"r": row})
    store.incrby(KEYS.spend_rows, len(rows))
    spend = SpendStream.connect(valkey_db, [KEYS], "m")
    claims = await spend.claim(3)
    await spend.ack(claims[:1])
    await spend.close()
    async with open_store(valkey_db) as client:
        assert (await view_shard(client, KEYS)).spend_backlog == 3


async def test_a_silent_process_is_not_live(valkey_db: str, store: Any):
    seconds, _ = store.time()
    live = own_entry("worker", started_at=0.0, now=float(seconds))
    silent = own_entry("worker", started_at=0.0, now=seconds - SILENT_SECONDS - 2)
    store.hset(KEYS.processes, mapping={"live": live.encode(), "silent": silent.encode()})
    async with open_store(valkey_db) as client:
        assert await live_processes(client) == {"live": live}


async def test_a_store_that_is_away_is_named_without_its_password():
    with pytest.raises(StoreAway) as caught:
        async with open_store("redis://:hidden@127.0.0.1:1/0") as client:
            await view_shard(client, KEYS)
    assert "Valkey" in str(caught.value)
    assert "hidden" not in str(caught.value)
