"""Postgres for the length of a command: an engine that is closed again, and plain words for failures.

The commands need no pool and no retry; they need to wait for a server that is coming up, to keep a
second release out, and to say in one line what is wrong.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.engine import Role, make_engine

RELEASE_LOCK_KEY = 0x6F6C6C6E
"""One after the key of the schema migrations, which take their own lock inside this one."""
POLL_SECONDS = 0.1


class PostgresAway(Exception):
    """Postgres could not be asked, or refused. The message says why, without the address."""


@asynccontextmanager
async def open_postgres(url: str, role: Role) -> AsyncIterator[AsyncEngine]:
    """An engine for one block. Raises PostgresAway for whatever the block's queries met."""
    engine = make_engine(url, role)
    try:
        yield engine
    except (SQLAlchemyError, OSError) as error:
        # Only the first line: the rest holds the statement and its parameters.
        reason = str(error).partition("\n")[0]
        raise PostgresAway(f"Postgres: {type(error).__name__}: {reason}") from error
    finally:
        await engine.dispose()


async def wait_for_postgres(engine: AsyncEngine, *, seconds: float) -> None:
    """Returns once a query is answered. Raises what the last try met."""
    try:
        async with asyncio.timeout(seconds):
            while not await _answers(engine):  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        await _ask(engine)


@asynccontextmanager
async def release_lock(engine: AsyncEngine, *, seconds: float) -> AsyncIterator[None]:
    """One release at a time, over all machines. Raises PostgresAway when another takes too long."""
    async with engine.connect() as plain:
        # Not in a transaction: it would stay open as long as the lock is held.
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        query = text("SELECT pg_try_advisory_lock(:key)")
        try:
            async with asyncio.timeout(seconds):
                # A blocked statement would run into the engine's own limit: it is asked again.
                while not await connection.scalar(  # noqa: ASYNC110 - another process's state
                    query, {"key": RELEASE_LOCK_KEY}
                ):
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise PostgresAway(f"another release has run for {seconds:.0f} s") from error
        try:
            yield
        finally:
            await connection.execute(
                text("SELECT pg_advisory_unlock(:key)"), {"key": RELEASE_LOCK_KEY}
            )


async def _answers(engine: AsyncEngine) -> bool:
    try:
        await _ask(engine)
    except (SQLAlchemyError, OSError):
        return False
    return True


async def _ask(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
