"""`gateway release` on real stores, as an operator starts it: what it makes, and makes once."""

import asyncio
import os
import re
import sys

import pytest
from sqlalchemy import text

from shared.api_key import ApiKey, is_secret
from shared.clock import SystemClock
from shared.postgres.engine import make_engine
from shared.postgres.keys import KeyOptions, KeyStore
from tests.integration.test_api_process import ROOT

RELEASE_SECONDS = 60.0
KEY = re.compile(r"sk-ollm-[0-9A-Za-z]{12}-[0-9A-Za-z]{48}")


@pytest.fixture
def environment(database_url, valkey_db, clickhouse_url) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_db,
        "CLICKHOUSE_URL": clickhouse_url,
    }


@pytest.fixture
async def keys(database_url):
    engine = make_engine(database_url, "test")
    yield KeyStore(engine, SystemClock())
    await engine.dispose()


async def released(environment: dict[str, str], *options: str) -> tuple[str, str]:
    return await gateway(environment, "release", *options)


async def gateway(environment: dict[str, str], *arguments: str) -> tuple[str, str]:
    """What the command printed, and what it logged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api.cli", *arguments,
        env=environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RELEASE_SECONDS):
            output, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, log.decode()
    return output.decode(), log.decode()


async def test_the_first_release_makes_one_key_and_prints_it_once(environment, keys, database_url):
    told = await asyncio.gather(*(released(environment) for _ in range(3)))
    (printed,) = [found for output, _ in told for found in KEY.findall(output)]
    assert not [log for _, log in told if printed in log]

    (info,) = await keys.list_keys()
    assert (info.name, info.metadata, info.tenant) == ("bootstrap", {"bootstrap": True}, "default")
    assert info.user_id == f"apikey-{info.id}"
    key = ApiKey.parse(printed)
    assert key is not None
    record = (await keys.fetch_many([key.public_id]))[info.public_id]
    assert is_secret(key.secret.encode(), record.secret_sha256)

    engine = make_engine(database_url, "test")
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT actor, action FROM audit_log"))
    await engine.dispose()
    assert ("gateway", "key.create") in [tuple(row) for row in rows]

    # One that does not work any more is a key all the same.
    await keys.revoke(info.public_id)
    output, _ = await released(environment)
    assert not KEY.search(output)
    assert len(await keys.list_keys()) == 1


async def test_where_there_is_a_key_or_none_is_wanted_no_release_makes_one(environment, keys):
    output, _ = await released({**environment, "GATEWAY_BOOTSTRAP_API_KEY": "false"})
    assert not KEY.search(output)
    assert await keys.list_keys() == []
    await keys.create(KeyOptions(name="mine"))
    output, _ = await released(environment)
    assert not KEY.search(output)
    assert [info.name for info in await keys.list_keys()] == ["mine"]


async def test_keys_are_made_as_the_catalog_says_what_user_is(environment, keys, tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text("[compat]\nuser_field = 'bill'\n")
    await released(environment, f"--config={config}")
    data_dir = f"--data-dir={tmp_path}"
    for options in ((), ("--user-field=attribute", "--scope=bill_others")):
        await gateway(environment, "keys", "create", data_dir, *options)
    first, second, third = await keys.list_keys()
    assert [first.user_field, second.user_field, third.user_field] == ["bill", "bill", "attribute"]
    assert (second.scopes, third.scopes) == ([], ["bill_others"])
    await gateway(environment, "keys", "update", third.public_id, "--user-field=bill", data_dir)
    assert (await keys.get(third.public_id)).user_field == "bill"


async def test_a_key_requires_attestation_until_it_is_told_otherwise(environment, keys, tmp_path):
    await released({**environment, "GATEWAY_BOOTSTRAP_API_KEY": "false"})
    data_dir = f"--data-dir={tmp_path}"
    await gateway(environment, "keys", "create", data_dir, "--attestation=require")
    (key,) = await keys.list_keys()
    assert key.attestation == "require"
    for wish, stored in (("record", "record"), ("default", None)):
        command = ("keys", "update", key.public_id, f"--attestation={wish}", data_dir)
        await gateway(environment, *command)
        assert (await keys.get(key.public_id)).attestation == stored
