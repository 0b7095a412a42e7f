"""Brings the database up to the newest migration, one migrator at a time.

A session-level advisory lock is held meanwhile, so that two releases that start at once run one
after the other and the second finds nothing to do.
"""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_KEY = 0x6F6C6C6D
"""`ollm` in ASCII: any number no other program on the same database uses will do."""
LOCK_SECONDS = 120.0
"""How long a release waits for another one; a migration that takes longer wants an eye on it."""
POLL_SECONDS = 0.1

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")


class MigrationLocked(Exception):
    """Another migrator did not finish in time."""


async def migrate(engine: AsyncEngine) -> None:
    """May be repeated, and started twice at once. Raises MigrationLocked.

    Give it an engine of role `release`: the limits of the others are too short for a migration.
    """
    # Outside any transaction: a lock that is held, or a wait for one, must not keep one open.
    async with engine.connect() as keeper:
        keeper = await keeper.execution_options(isolation_level="AUTOCOMMIT")
        await _lock(keeper)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(_upgrade)
        finally:
            await keeper.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})


async def _lock(connection: AsyncConnection) -> None:
    # Asked again and again rather than waited for: a blocked statement would run into the
    # engine's own limit on statements.
    try:
        async with asyncio.timeout(LOCK_SECONDS):
            while True:
                if await connection.scalar(_TRY_LOCK, {"key": LOCK_KEY}):
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise MigrationLocked(f"another migration has run for {LOCK_SECONDS:.0f} s") from error


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration in code: there is no alembic.ini."""
    config = Config()
    # The option is a format string of configparser: a percent sign in a path must be doubled.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    command.upgrade(alembic_config(connection), "head")
