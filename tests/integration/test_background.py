"""The background process on real servers: it does its chores, outlives Valkey, and stops cleanly."""

import asyncio
import os
import signal
from pathlib import Path

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.spend import SpendTable
from shared.embedded.servers import EmbeddedServers, GivenUrls
from shared.valkey.keys import ShardKeys
from shared.valkey.plain import plain_client
from tests.integration.metering import Process, process, until
from tests.spend_rows import spend_row

KEYS = ShardKeys(0)


async def test_it_starts_does_its_chores_and_stops_on_sigterm(
    valkey_db: str, tmp_path: Path
) -> None:
    valkey = plain_client(valkey_db, name="test")
    await valkey.execute_command("HSET", KEYS.uploads, "gone", "1 0 1000")

    async def swept() -> bool:
        return not await valkey.exists(KEYS.uploads)

    async with process("workers.background", tmp_path, VALKEY_URL=valkey_db) as background:
        await until(swept, seconds=25)  # this chore comes round each ten seconds
        assert await background.stop() == 0
        assert background.actions()[-1] == "stopped"
    await valkey.aclose()


async def test_it_sums_up_what_the_ledger_has(
    valkey_db: str, clickhouse_url: str, tmp_path: Path
) -> None:
    await migrate(clickhouse_url)
    store = ClickHouse(clickhouse_url)
    await SpendTable(store).insert([spend_row()], token="one")

    async def is_summed_up() -> bool:
        return await store.query("SELECT sum(requests) FROM usage_hourly FINAL") == [(1,)]

    urls = {"VALKEY_URL": valkey_db, "CLICKHOUSE_URL": clickhouse_url}
    async with process("workers.background", tmp_path, **urls) as background:
        await until(is_summed_up, seconds=35)  # the chore comes round each twenty seconds
        assert await background.stop() == 0
    await store.close()


async def test_it_outlives_a_valkey_that_is_killed_and_started_again(
    data_dir: Path, tmp_path: Path
) -> None:
    # The two servers it does not need are said to be given, so only Valkey is started.
    servers = EmbeddedServers(data_dir, given=GivenUrls(postgres="unused", clickhouse="unused"))
    await asyncio.to_thread(servers.start)
    url = servers.urls.valkey_url
    valkey = plain_client(url, name="test")

    async def is_at_work() -> bool:
        """arq says so by its health check's key, anew with each worker."""
        return bool(await valkey.exists("arq:queue:health-check"))

    try:
        async with process("workers.background", tmp_path, VALKEY_URL=url) as background:
            await until(is_at_work)
            os.kill(servers.pids["valkey"], signal.SIGKILL)
            await until(lambda: _says(background, "store_away"))
            await asyncio.to_thread(servers.restart, "valkey")
            await valkey.delete("arq:queue:health-check")
            await until(is_at_work)
            assert await background.stop() == 0
    finally:
        await valkey.aclose()
        await asyncio.to_thread(servers.stop)


async def _says(process: Process, word: str) -> bool:
    return word in process.actions()
