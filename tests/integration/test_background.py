"""The background process on real servers: it does its chores, outlives Valkey, and stops cleanly."""

import asyncio
import os
import signal
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate
from shared.clickhouse.spend import SpendTable
from shared.clock import StillClock, SystemClock
from shared.embedded.servers import EmbeddedServers, GivenUrls
from shared.postgres.audit import CLI
from shared.postgres.budgets import BudgetStore, BudgetTerms
from shared.postgres.engine import Engine, make_engine
from shared.postgres.migrate import migrate as migrate_postgres
from shared.postgres.users import NewUser, UserInfo, UserStore
from shared.postgres.windows import WindowStore
from shared.valkey.keys import ShardKeys
from shared.valkey.plain import plain_client
from tests.integration.metering import Process, process, until
from tests.integration.test_webhook import SECRET, Receiver, receiving
from tests.spend_rows import spend_row

KEYS = ShardKeys(0)


async def test_its_chores_come_round_until_sigterm(
    valkey_db: str, database_url: str, clickhouse_url: str, tmp_path: Path
) -> None:
    """One process for all of them: each comes round within a minute, and they wait together."""
    valkey, store = plain_client(valkey_db, name="test"), ClickHouse(clickhouse_url)
    engine = make_engine(database_url, "test")
    await valkey.execute_command("HSET", KEYS.uploads, "gone", "1 0 1000")
    await migrate(clickhouse_url)
    await SpendTable(store).insert([spend_row()], token="one")
    made = await _user_whose_budget_is_due(engine)

    async def is_swept() -> bool:
        return not await valkey.exists(KEYS.uploads)

    async def is_summed_up() -> bool:
        return await store.query("SELECT sum(requests) FROM usage_hourly FINAL") == [(1,)]

    async def is_reset() -> bool:
        return bool(await WindowStore(engine).history_of_user("u1", tenant="default"))

    async with receiving(200) as receiver:
        urls = {
            "VALKEY_URL": valkey_db, "DATABASE_URL": database_url,
            "CLICKHOUSE_URL": clickhouse_url, "GATEWAY_WEBHOOK_SECRET": SECRET,
            "GATEWAY_WEBHOOK_URL": f"http://127.0.0.1:{receiver.port}/",
            "GATEWAY_WEBHOOK_ALLOW_PRIVATE": "true",
        }  # fmt: skip
        async with process("workers.background", tmp_path, **urls) as background:
            await until(is_swept, seconds=25)  # each ten seconds
            await until(is_summed_up, seconds=35)  # each twenty seconds
            await until(is_reset, seconds=75)  # each minute
            await until(lambda: _got(receiver), seconds=10)
            assert await background.stop() == 0
            assert background.actions()[-1] == "stopped"
    user = await UserStore(engine, SystemClock()).get("u1")
    assert made.next_budget_reset_at is not None
    assert user.budget_started_at is not None
    assert user.budget_started_at >= made.next_budget_reset_at - timedelta(milliseconds=1)
    assert b'"type":"budget.reset"' in receiver.requests[0][1]
    await valkey.aclose()
    await store.close()
    await engine.dispose()


async def _user_whose_budget_is_due(engine: Engine) -> UserInfo:
    await migrate_postgres(engine)
    clock = StillClock(SystemClock().now() - 90)
    terms = BudgetTerms(max_budget=Decimal(1), budget_duration_sec=60)
    budget = await BudgetStore(engine, clock).create(terms, CLI)
    new = NewUser(user_id="u1", budget_id=str(budget.budget_id))
    return await UserStore(engine, clock).create(new, CLI)


async def test_it_does_not_start_with_a_webhook_that_is_none(
    valkey_db: str, tmp_path: Path
) -> None:
    urls = {"VALKEY_URL": valkey_db, "GATEWAY_WEBHOOK_URL": "https://hooks.example/"}
    async with process("workers.background", tmp_path, **urls) as background:
        async with asyncio.timeout(20):
            assert await background.child.wait() == 1
        assert "GATEWAY_WEBHOOK_SECRET" in background.log.read_text()


async def _got(receiver: Receiver) -> bool:
    return bool(receiver.requests)


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
