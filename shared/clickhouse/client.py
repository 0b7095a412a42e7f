"""The door to ClickHouse: one asynchronous client per process, and what its failures mean.

The client connects on first use, so that a process may start while ClickHouse is away. A failure is
either `ClickHouseAway` (the same call may succeed later) or `ContentRefused` (it never will).
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import clickhouse_connect
import lz4.frame
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

CONNECT_SECONDS = 5.0
CALL_SECONDS = 60.0
"""A batch of 10,000 rows takes 50 ms; beyond a minute the server is not working."""

CONTENT_CODES = frozenset(
    {6, 26, 27, 32, 33, 38, 41, 53, 69, 70, 72, 117, 128, 131, 190, 321, 349, 376, 407, 469, 636}
)
"""Server errors that a row's values cause (ErrorCodes.cpp: parsing, conversion, overflow, NULL,
size, constraint). Every other code (no such table, read-only, too many parts, no memory, no space,
no permission) is the server's state: it passes, and must not cost a row."""

INSERT_SETTINGS = {
    # A batch after a long outage may span months; the default bound of 100 would refuse it.
    "max_partitions_per_insert_block": 0,
    # A batch whose rows are there may lack in what is fed by them: its repeat goes to each by itself.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}


class ClickHouseAway(Exception):
    """ClickHouse did not do it now: not reachable, or not able. The same call may be repeated."""


class ContentRefused(Exception):
    """A value in the call cannot be stored. Repeating the same call cannot help."""


class Address:
    """Where a ClickHouse URL points: http[s]://[user:password@]host[:port][/database]."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            raise ValueError(f"not a ClickHouse URL scheme: {parts.scheme!r}")
        self.interface = parts.scheme
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or (8443 if parts.scheme == "https" else 8123)
        self.username = unquote(parts.username or "default")
        self.password = unquote(parts.password or "")
        self.database = unquote(parts.path.strip("/")) or "default"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", self.database):
            raise ValueError(f"not a database name: {self.database!r}")


class ClickHouse:
    """One server and database, for one event loop."""

    def __init__(self, url: str, *, database: str | None = None) -> None:
        """`database` replaces the one the URL names."""
        self._address = Address(url)
        self.database = database or self._address.database
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def command(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        """Runs a statement that answers nothing."""
        with _failures():
            async with asyncio.timeout(CALL_SECONDS):
                client = await self._connected()
                await client.command(sql, parameters=dict(parameters or {}))

    async def query(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows a statement answers; times are aware, in UTC."""
        with _failures():
            async with asyncio.timeout(CALL_SECONDS):
                client = await self._connected()
                result = await client.query(sql, parameters=dict(parameters or {}))
                return [tuple(row) for row in result.result_rows]

    async def insert(self, table: str, columns: Sequence[str], block: bytes, *, token: str) -> None:
        """Inserts one Native block. No DESCRIBE is asked first: the block names its types.

        Returning means that ClickHouse has the rows. Raising `ClickHouseAway` leaves open whether
        it has: repeat with the same token.
        """
        with _failures():
            async with asyncio.timeout(CALL_SECONDS):
                client = await self._connected()
                await client.raw_insert(
                    table,
                    columns,
                    lz4.frame.compress(block),
                    fmt="Native",
                    compression="lz4",
                    settings={"insert_deduplication_token": token} | INSERT_SETTINGS,
                )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
        return self._client

    async def _connect(self) -> AsyncClient:
        address = self._address
        return await clickhouse_connect.get_async_client(
            interface=address.interface,
            host=address.host,
            port=address.port,
            username=address.username,
            password=address.password,
            database=self.database,
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=CALL_SECONDS,
            tz_mode="aware",
            client_name="ollm-gateway",
            # Our batches are large already: a server-side buffer would only add its flush time.
            settings={"async_insert": 0},
        )


@contextmanager
def _failures() -> Iterator[None]:
    """Turns what the client library raises into the two cases a caller can act on."""
    try:
        yield
    except ClickHouseError as error:
        code = getattr(error, "code", None)
        name = getattr(error, "name", None) or "unknown"
        if code in CONTENT_CODES:
            raise ContentRefused(f"ClickHouse error {code} ({name})") from error
        reason = f"ClickHouse error {code} ({name})" if code else "ClickHouse cannot be reached"
        raise ClickHouseAway(reason) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ClickHouseAway(f"ClickHouse cannot be reached: {type(error).__name__}") from error
