"""The migrations on a real Postgres: one history, equal to the tables, safe to start twice."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres import migrate as migrate_module
from shared.postgres.engine import make_engine
from shared.postgres.migrate import (
    LOCK_KEY,
    MIGRATIONS,
    MigrationLocked,
    alembic_config,
    migrate,
)
from shared.postgres.tables import metadata


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url, "release")
    yield engine
    await engine.dispose()


async def table_names(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


def test_the_history_is_one_line_with_one_head():
    history = ScriptDirectory.from_config(alembic_config())
    assert len(history.get_heads()) == 1
    assert len(history.get_bases()) == 1
    for revision in history.walk_revisions():
        assert not revision.is_merge_point
        assert not revision.is_branch_point


def test_no_revision_imports_code_of_ours():
    for file in (MIGRATIONS / "versions").glob("*.py"):
        source = file.read_text()
        assert "from shared" not in source, file
        assert "import shared" not in source, file


async def test_the_migrations_make_exactly_the_tables(engine):
    await migrate(engine)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        checks = await connection.scalars(
            text("SELECT conname FROM pg_constraint WHERE contype = 'c'"
                 " AND connamespace = 'public'::regnamespace")
        )  # fmt: skip
        expected = {
            str(constraint.name)
            for table in metadata.tables.values()
            for constraint in table.constraints
            if type(constraint).__name__ == "CheckConstraint"
        }
        # Alembic does not compare check constraints.
        assert set(checks) == expected


async def test_a_second_run_finds_nothing_to_do(engine):
    await migrate(engine)
    before = await table_names(engine)
    await migrate(engine)
    assert await table_names(engine) == before == {*metadata.tables, "alembic_version"}


async def test_two_that_start_at_once_both_succeed(database_url):
    engines = [make_engine(database_url, "release") for _ in range(3)]
    await asyncio.gather(*map(migrate, engines))
    assert set(metadata.tables) <= await table_names(engines[0])
    for engine in engines:
        await engine.dispose()


async def test_a_migrator_waits_for_another_and_gives_up_with_a_reason(engine, monkeypatch):
    monkeypatch.setattr(migrate_module, "LOCK_SECONDS", 0.3)
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        with pytest.raises(MigrationLocked):
            await migrate(engine)
        assert "users" not in await table_names(engine)
        await other.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
    await migrate(engine)


async def test_the_lock_is_free_after_a_migration_that_failed(engine, monkeypatch):
    def broken(_connection: Connection) -> None:
        raise RuntimeError("broken migration")

    with monkeypatch.context() as patch:
        patch.setattr(migrate_module, "_upgrade", broken)
        with pytest.raises(RuntimeError):
            await migrate(engine)
    await migrate(engine)
    assert set(metadata.tables) <= await table_names(engine)


async def test_every_migration_can_be_taken_back(engine):
    await migrate(engine)

    def down(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "base")

    async with engine.connect() as connection:
        await connection.run_sync(down)
    assert await table_names(engine) == {"alembic_version"}
    await migrate(engine)


def test_the_migrations_are_in_the_package():
    """They are found from anywhere, as an installed package's are."""
    found = subprocess.run(
        [sys.executable, "-c",
         "from shared.postgres.migrate import MIGRATIONS; print((MIGRATIONS/'env.py').exists())"],
        cwd=MIGRATIONS.parents[2], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert found.stdout.strip() == "True"


async def test_keys_made_before_the_second_migration_call_a_label_an_attribute(engine):
    def to(revision: str, connection: Connection) -> None:
        command.upgrade(alembic_config(connection), revision)

    async with engine.connect() as connection:
        await connection.run_sync(partial(to, "0001"))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO users (tenant, user_id) VALUES ('t', 'u')"))
        await connection.execute(
            text(
                "INSERT INTO api_keys (id, public_id, secret_sha256, tenant, user_id)"
                " VALUES (gen_random_uuid(), 'p', sha256('s'), 't', 'u')"
            )
        )
    await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT user_field FROM api_keys")) == "attribute"
