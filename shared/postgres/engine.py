"""Makes the one Postgres engine of a process: named, bounded, with a limit on every wait."""

from typing import Any, Literal

import asyncpg
import msgspec
from sqlalchemy import make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

Role = Literal["api", "worker", "metering", "background", "release", "cli", "test"]
"""Shown in `pg_stat_activity` as `ollm-<role>`."""

STORE_ERRORS = (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a store raises when Postgres is away or refuses. A server that is just starting refuses
connections with the driver's own error, which SQLAlchemy lets through; TimeoutError is an OSError.
"""

Engine = AsyncEngine
"""For those who hand one on without speaking SQL."""

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 10.0
"""Past it the server ends a statement, whatever became of its client."""
RELEASE_STATEMENT_SECONDS = 1800.0
"""A migration may rewrite a table."""
POOL_WAIT_SECONDS = 2.0
"""Nothing on the request path waits for a connection; loops try again soon."""
POOL_SIZE = 5
"""Reads are batched, so a process needs few connections; many processes share the server."""
RECYCLE_SECONDS = 1800
"""Connections behind a balancer or a failover must not live for ever."""


def make_engine(url: str, role: Role, *, pool_size: int = POOL_SIZE) -> AsyncEngine:
    """Connects on first use. `dispose()` it at the end."""
    statement_seconds = RELEASE_STATEMENT_SECONDS if role == "release" else STATEMENT_SECONDS
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_recycle=RECYCLE_SECONDS,
        # A server that was restarted costs one round trip here instead of one failed query.
        pool_pre_ping=True,
        json_serializer=_to_json,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": statement_seconds,
            "server_settings": {
                "application_name": f"ollm-{role}",
                "statement_timeout": str(int(statement_seconds * 1000)),
                "timezone": "UTC",
            },
        },
    )


_encode = msgspec.json.Encoder(decimal_format="number").encode


def _to_json(value: Any) -> str:
    return _encode(value).decode()


async def is_up(engine: AsyncEngine) -> bool:
    """Whether Postgres answers. Give it a deadline."""
    try:
        async with engine.connect() as connection:
            await connection.execute(select(1))
    except STORE_ERRORS:
        return False
    return True
