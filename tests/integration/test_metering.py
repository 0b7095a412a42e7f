"""The metering process on real servers: whatever dies when, each row arrives, and counts once."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.embedded.servers import EmbeddedServers
from shared.spend import decode_row, encode_row
from shared.valkey.client import ValkeyAway
from shared.valkey.keys import METERING_GROUP, ShardKeys
from shared.valkey.plain import failures, plain_client
from tests.integration.metering import process, until
from tests.spend_rows import spend_row

KEYS = ShardKeys(0)
METERING = "workers.metering"
LEASE = {"GATEWAY_LEASE_SECONDS": "1"}


class Ledger:
    """What was put on the stream, and what the table has of it."""

    def __init__(self, valkey: Redis, store: ClickHouse) -> None:
        self.valkey = valkey
        self._store = store
        self.added = 0

    async def add(self, count: int) -> None:
        """Row number n costs n nano-dollars, so that the sum tells a missing from a doubled one."""
        async with self.valkey.pipeline(transaction=False) as many:
            for at in range(self.added, self.added + count):
                many.xadd(KEYS.spend, {"r": encode_row(spend_row(at))})
            await many.execute()
        self.added += count

    async def is_empty(self) -> bool:
        try:
            with failures():
                return not await self.valkey.xlen(KEYS.spend)
        except ValkeyAway:
            return False

    async def folded(self) -> tuple[int, Decimal]:
        rows = await self._store.query("SELECT count(), sum(cost_usd) FROM spend")
        return rows[0][0], rows[0][1]

    @property
    def expected(self) -> tuple[int, Decimal]:
        return self.added, Decimal(self.added * (self.added - 1) // 2).scaleb(-9)


@pytest.fixture
async def ledger(valkey_db: str, clickhouse_url: str) -> AsyncIterator[Ledger]:
    await migrate(clickhouse_url)
    valkey, store = plain_client(valkey_db, name="test"), ClickHouse(clickhouse_url)
    yield Ledger(valkey, store)
    await valkey.aclose()
    await store.close()


async def test_every_row_counts_once_however_often_metering_is_killed(
    ledger: Ledger, valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    urls = {"VALKEY_URL": valkey_db, "CLICKHOUSE_URL": clickhouse_url}
    kills = 0
    for _ in range(6):
        async with process(METERING, tmp_path, **urls, **LEASE) as metering:
            await until(metering.has_started)
            for _ in range(4):
                await ledger.add(200)
                # Inserts come once a second: lives of one to two seconds end all around them.
                await asyncio.sleep(random.uniform(0.2, 0.5))
            await metering.kill()
            kills += 1
    held = (await ledger.valkey.xpending(KEYS.spend, METERING_GROUP))["pending"]
    await ledger.add(200)
    async with process(METERING, tmp_path, **urls, **LEASE) as metering:
        await until(ledger.is_empty)
        assert await metering.stop() == 0
    print(f"\n{ledger.added} rows, {kills} kills, {held} held by the dead at the end")
    assert ledger.added == 5000
    assert await ledger.folded() == ledger.expected


async def test_a_kill_between_insert_and_acknowledgement_repeats_rows_and_counts_them_once(
    ledger: Ledger, valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    urls = {"VALKEY_URL": valkey_db, "CLICKHOUSE_URL": clickhouse_url}
    await ledger.add(500)
    # The acknowledgement is held up, so that the kill falls just between the two.
    await ledger.valkey.acl_setuser(
        "metering", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-xack"]
    )
    unable = valkey_db.replace("redis://", "redis://metering:any@", 1)
    try:
        async with process(METERING, tmp_path, **(urls | {"VALKEY_URL": unable}), **LEASE) as one:
            await until(lambda: _has(ledger, 500))
            await one.kill()
    finally:
        await ledger.valkey.acl_deluser("metering")
    assert await ledger.valkey.xlen(KEYS.spend) == 500
    async with process(METERING, tmp_path, **urls, **LEASE):
        await until(ledger.is_empty)
    assert await ledger.folded() == ledger.expected


async def _has(ledger: Ledger, count: int) -> bool:
    return (await ledger.folded())[0] == count


async def test_sigterm_stores_what_is_held_and_leaves_nothing_pending(
    ledger: Ledger, valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    async with process(
        METERING, tmp_path, VALKEY_URL=valkey_db, CLICKHOUSE_URL=clickhouse_url
    ) as metering:
        await until(lambda: _has_group(ledger))
        await ledger.add(50)
        await asyncio.sleep(0.3)
        assert await metering.stop() == 0
        assert metering.actions() == ["started", "stopped"]
    assert await ledger.folded() == ledger.expected
    assert await ledger.is_empty()
    assert await ledger.valkey.xinfo_consumers(KEYS.spend, METERING_GROUP) == []


async def _has_group(ledger: Ledger) -> bool:
    return bool(await ledger.valkey.exists(KEYS.spend))


async def test_rows_that_cannot_be_read_or_stored_are_set_aside_and_the_rest_goes_on(
    ledger: Ledger, valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    await ledger.add(30)
    await ledger.valkey.xadd(KEYS.spend, {"r": b"\xc1"})
    await ledger.valkey.xadd(KEYS.spend, {"r": encode_row(spend_row(row_id="not an id"))})
    await ledger.add(30)
    async with process(
        METERING, tmp_path, VALKEY_URL=valkey_db, CLICKHOUSE_URL=clickhouse_url
    ) as metering:
        await until(ledger.is_empty)
        assert metering.actions().count("spend_quarantined") == 2
    assert await ledger.folded() == ledger.expected
    aside = [fields for _, fields in await ledger.valkey.xrange(KEYS.spend_quarantine)]
    assert [fields[b"reason"].split(b":")[0] for fields in aside] == [
        b"unreadable",
        b"a value does not fit its column",
    ]


async def test_a_row_that_comes_again_with_another_end_replaces_the_first(
    ledger: Ledger, valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    first, store = spend_row(7), ClickHouse(clickhouse_url)
    ended = first.ended_at + timedelta(seconds=20)
    again = replace(first, status="lost", ended_at=ended, cost_usd=Decimal(0))
    async with process(
        METERING, tmp_path, VALKEY_URL=valkey_db, CLICKHOUSE_URL=clickhouse_url
    ) as metering:
        for row in (first, first, again):  # each alone in its batch
            await ledger.valkey.xadd(KEYS.spend, {"r": encode_row(row)})
            await until(ledger.is_empty)
        assert await metering.stop() == 0
    assert await store.query("SELECT status, cost_usd FROM spend") == [("lost", Decimal(0))]
    await store.close()


async def test_a_row_the_server_refuses_is_found_in_its_batch_and_set_aside_with_the_reason(
    ledger: Ledger, valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    store = ClickHouse(clickhouse_url)
    await store.command("ALTER TABLE spend_rows ADD CONSTRAINT edible CHECK user != 'poison'")
    await ledger.add(300)
    await ledger.valkey.xadd(KEYS.spend, {"r": encode_row(spend_row(user="poison"))})
    await ledger.add(300)
    async with process(
        METERING, tmp_path, VALKEY_URL=valkey_db, CLICKHOUSE_URL=clickhouse_url
    ) as metering:
        await until(ledger.is_empty)
        assert metering.actions().count("spend_quarantined") == 1
    assert await ledger.folded() == ledger.expected
    ((_, aside),) = await ledger.valkey.xrange(KEYS.spend_quarantine)
    assert aside[b"reason"] == b"ClickHouse error 469 (VIOLATED_CONSTRAINT)"
    assert decode_row(aside[b"r"]).user == "poison"
    await store.close()


async def test_rows_wait_for_servers_that_are_away_and_arrive_when_they_are_back(
    data_dir: Path, tmp_path: Path
) -> None:
    servers = EmbeddedServers(data_dir, fsync=False)
    await asyncio.to_thread(servers.start)
    urls = servers.urls
    try:
        await migrate(urls.clickhouse_url)
        valkey, store = plain_client(urls.valkey_url, name="test"), ClickHouse(urls.clickhouse_url)
        ledger = Ledger(valkey, store)
        environment = {"VALKEY_URL": urls.valkey_url, "CLICKHOUSE_URL": urls.clickhouse_url}
        async with process(METERING, tmp_path, **environment, **LEASE) as metering:
            await ledger.add(300)
            await until(ledger.is_empty)
            _kill(servers.pids["clickhouse"])
            await ledger.add(300)
            await asyncio.sleep(1.5)
            assert await valkey.xlen(KEYS.spend) == 300
            await asyncio.to_thread(servers.restart, "clickhouse")
            await until(ledger.is_empty)
            await ledger.add(300)
            await asyncio.sleep(0.3)
            _kill(servers.pids["valkey"])
            await asyncio.sleep(1.0)
            await asyncio.to_thread(servers.restart, "valkey")
            await until(ledger.is_empty)
            assert await metering.stop() == 0
            actions = [word for word in metering.actions() if word != "metrics_away"]
        assert await ledger.folded() == ledger.expected
        assert actions == ["started", *(["store_away", "store_back"] * 2), "stopped"]
        await valkey.aclose()
        await store.close()
    finally:
        await asyncio.to_thread(servers.stop)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
