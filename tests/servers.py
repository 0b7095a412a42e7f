"""Fixtures for real servers: started once from wheels, or given by their URLs.

`VALKEY_URL`, `DATABASE_URL` and `CLICKHOUSE_URL`, where set, replace the started servers, so the
same tests run against the images that production uses. Each test gets a database of its own.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import clickhouse_connect
import pytest
import redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.embedded.servers import EmbeddedServers, GivenUrls, ServerUrls


@pytest.fixture(scope="session")
def servers() -> Iterator[ServerUrls]:
    """The three servers, shared by the whole session: tests must not stop them."""
    given = GivenUrls(
        valkey=os.environ.get("VALKEY_URL"),
        postgres=os.environ.get("DATABASE_URL"),
        clickhouse=os.environ.get("CLICKHOUSE_URL"),
    )
    with open_folder() as folder:
        embedded = EmbeddedServers(folder, given=given, fsync=False)
        try:
            embedded.start()
            yield embedded.urls
        finally:
            embedded.stop()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """For a test that starts servers of its own, and may stop and kill them."""
    with open_folder() as folder:
        yield folder


@contextmanager
def open_folder() -> Iterator[Path]:
    """Unlike pytest's tmp_path, the account Postgres runs as under root can enter it."""
    with tempfile.TemporaryDirectory(prefix="gateway-tests-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def valkey_url(servers: ServerUrls) -> str:
    """As it is; a test that needs it empty takes `valkey_db`."""
    return servers.valkey_url


@pytest.fixture
def valkey_db(valkey_url: str) -> str:
    """The URL of a Valkey database without keys; what the test before left is gone."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushdb()
    return valkey_url


@pytest.fixture
async def database_url(servers: ServerUrls) -> AsyncIterator[str]:
    """A fresh Postgres database, dropped after the test with whoever is still connected."""
    name = f"test_{uuid4().hex}"
    await _in_postgres(servers.database_url, f'CREATE DATABASE "{name}"')
    url = make_url(servers.database_url).set(database=name)
    yield url.render_as_string(hide_password=False)
    await _in_postgres(servers.database_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def clickhouse_url(servers: ServerUrls) -> Iterator[str]:
    """A fresh ClickHouse database, dropped after the test."""
    name = f"test_{uuid4().hex}"
    _in_clickhouse(servers.clickhouse_url, f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(servers.clickhouse_url)._replace(path=f"/{name}"))
    _in_clickhouse(servers.clickhouse_url, f"DROP DATABASE {name} SYNC")


async def _in_postgres(url: str, statement: str) -> None:
    """CREATE and DROP DATABASE refuse to run inside a transaction."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def _in_clickhouse(url: str, statement: str) -> None:
    client = clickhouse_connect.get_client(dsn=url)
    client.command(statement)
    client.close()
