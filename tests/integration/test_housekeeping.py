"""Each chore on a real Valkey: it takes what is dead, and leaves what lives or may come back."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.metrics import Metrics
from shared.spend import encode_row
from shared.valkey import housekeeping
from shared.valkey.housekeeping import Buried, Housekeeper
from shared.valkey.keys import METERING_GROUP, WORKERS_GROUP, ShardKeys
from shared.valkey.plain import plain_client
from shared.valkey.processes import own_entry
from tests.spend_rows import spend_row
from workers.housekeeping import Housekeeping

KEYS = ShardKeys(0)
Valkey = Any  # redis-py's hints know neither bytes as names nor one way to await


@pytest.fixture
async def valkey(valkey_db: str) -> AsyncIterator[Valkey]:
    client = plain_client(valkey_db, name="test")
    yield client
    await client.aclose()


@pytest.fixture
async def keeper(valkey_db: str) -> AsyncIterator[Housekeeper]:
    keeper = Housekeeper.connect(valkey_db, [KEYS, ShardKeys(1)], "test")
    yield keeper
    await keeper.close()


@pytest.fixture
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "INBOX_GRACE_SECONDS", -1)


@pytest.mark.usefixtures("_no_grace")
async def test_the_inbox_of_a_process_that_is_gone_is_removed(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    await valkey.sadd(KEYS.inboxes, "dead", "alive")
    for process in ("dead", "alive"):
        await valkey.xadd(KEYS.inbox(process), {"a": "b"})
    await valkey.set(KEYS.inbox_lease("alive"), 1, px=60_000)
    assert await keeper.sweep_inboxes() == 0, "the first look notes since when the server answers"
    assert await keeper.sweep_inboxes() == 1
    assert await valkey.smembers(KEYS.inboxes) == {b"alive"}
    assert await valkey.exists(KEYS.inbox("dead")) == 0
    assert await valkey.xlen(KEYS.inbox("alive")) == 1
    assert await keeper.sweep_inboxes() == 0


async def test_no_inbox_is_judged_right_after_the_server_has_started(
    keeper: Housekeeper, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "INBOX_GRACE_SECONDS", 1_000_000)
    await valkey.sadd(KEYS.inboxes, "dead")
    assert await keeper.sweep_inboxes() == 0


async def test_an_upload_without_a_job_is_removed_once_it_has_been_quiet(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    quiet, moving = "2 30 1000", f"1 5 {time.time() * 1000:.0f}"
    states = {"gone": quiet, "running": quiet, "coming": moving, "empty": "0 0 1000"}
    await valkey.hset(KEYS.uploads, mapping=states)
    await valkey.set(KEYS.sealed_bytes, 100)
    await valkey.hset(KEYS.job("running"), "entry", "1-0")
    for upload in ("gone", "running", "coming"):
        await valkey.xadd(KEYS.upload(upload), {"c": "x"}, id="1-0")
    assert await keeper.sweep_uploads() == 2
    assert set(await valkey.hkeys(KEYS.uploads)) == {b"running", b"coming"}
    assert await valkey.get(KEYS.sealed_bytes) == b"70"
    assert await valkey.exists(KEYS.upload("gone")) == 0
    assert await valkey.exists(KEYS.upload("coming"), KEYS.upload("running")) == 2


async def test_buried_jobs_are_kept_up_to_a_bound_and_quarantined_rows_for_good(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    for at in range(1, 8):
        await valkey.xadd(KEYS.buried, {"r": str(at)}, id=f"{at}-0")
        await valkey.xadd(KEYS.spend_quarantine, {"r": str(at)})
    assert await keeper.trim_kept(5) == 2
    left = await valkey.xrange(KEYS.buried)
    assert [entry for entry, _ in left] == [b"%d-0" % at for at in range(3, 8)]
    assert await valkey.xlen(KEYS.spend_quarantine) == 7


async def test_processes_long_silent_are_taken_off_the_register(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    def entry(seen_at: float) -> bytes:
        return own_entry("worker", started_at=0, now=seen_at).encode()

    now = 10_000.0
    await valkey.hset(KEYS.processes, mapping={"old": entry(now - 601), "new": entry(now - 5)})
    assert await keeper.forget_processes(now) == 1
    assert await valkey.hkeys(KEYS.processes) == [b"new"]


async def test_only_entries_that_were_acknowledged_are_trimmed_from_the_spend_stream(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    await valkey.xgroup_create(KEYS.spend, METERING_GROUP, "0", mkstream=True)
    for at in range(1, 7):
        await valkey.xadd(KEYS.spend, {"r": encode_row(spend_row(at))}, id=f"{at}-0")
    assert await keeper.trim_acked() == 0
    await valkey.xreadgroup(METERING_GROUP, "one", {KEYS.spend: ">"}, count=4)
    await valkey.xack(KEYS.spend, METERING_GROUP, "1-0", "2-0", "4-0")
    assert await keeper.trim_acked() == 2
    await valkey.xack(KEYS.spend, METERING_GROUP, "3-0")
    assert await keeper.trim_acked() == 2
    # Entries that nobody has read yet stay.
    assert [entry for entry, _ in await valkey.xrange(KEYS.spend)] == [b"5-0", b"6-0"]


async def test_a_spend_stream_that_no_group_reads_is_left_alone(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    await valkey.xadd(KEYS.spend, {"r": "x"})
    assert await keeper.trim_acked() == 0
    assert await valkey.xlen(KEYS.spend) == 1


async def test_a_silent_consumer_is_forgotten_unless_it_holds_something(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    lane = KEYS.lane("default")
    for stream, group in ((KEYS.spend, METERING_GROUP), (lane, WORKERS_GROUP)):
        await valkey.xgroup_create(stream, group, "0", mkstream=True)
        await valkey.xgroup_createconsumer(stream, group, "idle")
        await valkey.xadd(stream, {"r": "x"})
        await valkey.xreadgroup(group, "holds", {stream: ">"})
    assert await keeper.forget_consumers() == 0
    await asyncio.sleep(0.02)
    assert await keeper.forget_consumers(0.01) == 2
    for stream, group in ((KEYS.spend, METERING_GROUP), (lane, WORKERS_GROUP)):
        assert [one["name"] for one in await valkey.xinfo_consumers(stream, group)] == [b"holds"]
        assert (await valkey.xpending(stream, group))["pending"] == 1


async def test_buried_jobs_are_counted_over_all_shards(keeper: Housekeeper, valkey: Valkey) -> None:
    assert await keeper.buried() is None
    await valkey.xadd(KEYS.buried, {"r": "1", "reason": "killed three workers"}, id="5-0")
    await valkey.xadd(ShardKeys(1).buried, {"r": "2", "reason": "older"}, id="4-0")
    assert await keeper.buried() == Buried(2, "5-0", "killed three workers")


async def test_what_is_found_is_reported_once_for_each_change(
    keeper: Housekeeper, valkey: Valkey
) -> None:
    chores = Housekeeping(keeper, Metrics())
    await valkey.xadd(KEYS.buried, {"r": "1", "reason": "it crashed"})
    await valkey.hset(KEYS.job("lost"), mapping={"entry": "12-0", "size": 0})
    with capture_logs() as logs:
        for _ in range(2):
            await chores.report_buried({})
            await chores.sweep_orphans({})
        await valkey.xadd(KEYS.buried, {"r": "2", "reason": "again"})
        await chores.report_buried({})
    assert [(line["action"], line["count"]) for line in logs] == [
        ("jobs_buried", 1),
        ("jobs_orphaned", 1),
        ("jobs_buried", 2),
    ]
    assert logs[0]["reason"] == "it crashed"


async def test_what_was_taken_away_is_counted(keeper: Housekeeper, valkey: Valkey) -> None:
    metrics = Metrics()
    await valkey.hset(KEYS.uploads, "gone", "1 0 1000")
    await Housekeeping(keeper, metrics).sweep_uploads({})
    assert metrics.registry.get_sample_value("gateway_housekeeping_total", {"kind": "uploads"}) == 1


async def test_a_chore_is_put_off_while_valkey_is_away() -> None:
    keeper = Housekeeper.connect("redis://127.0.0.1:9/0", [KEYS], "test")
    chores = Housekeeping(keeper, Metrics())
    with capture_logs() as logs:
        for chore in (chores.sweep_inboxes, chores.report_buried, chores.forget_consumers):
            await chore({})
    assert [line["action"] for line in logs] == ["chore_put_off"] * 3
    await keeper.close()
