"""The ClickHouse engine in this process: one data directory, any number of connections.

Each statement gets a connection of its own. USE, SET and temporary tables live on a connection,
so nothing of one request can reach the next; opening one takes 0.1 ms.
"""

import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chdb

from shared.embedded.clickhouse_front.infile import infile
from shared.embedded.clickhouse_front.refusal import STD_EXCEPTION, Refusal
from shared.embedded.clickhouse_front.request import DEFAULT_DATABASE, DEFAULT_FORMAT, Request

# The library differs from the server in this default: it takes `1 + 1` for a statement.
_SERVER_DEFAULTS = {"implicit_select": "0"}
_CODE = re.compile(r"Code: (\d+)\.")


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    summary: dict[str, str]
    """The X-ClickHouse-Summary header: numbers as strings, as the server writes them."""


class Engine:
    """Opening blocks for about 20 ms; a directory in use by another process is an error.

    Methods may be called from any thread. A statement cannot be interrupted from outside; the
    client bounds it with `max_execution_time`.
    """

    def __init__(self, path: Path, *, database: str) -> None:
        self._path = str(path)
        # The engine lives while a connection is open: this one keeps it between requests.
        self._anchor = chdb.connect(self._path)
        _query(self._anchor, f"CREATE DATABASE IF NOT EXISTS {_identifier(database)}".encode())
        row = _query(self._anchor, b"SELECT version(), timezone()").bytes().decode()
        self.version, self.timezone = row.rstrip("\n").split("\t")

    def close(self) -> None:
        self._anchor.close()

    def run(self, request: Request) -> Answer:
        with closing(chdb.connect(self._path)) as connection:
            _prepare(connection, request)
            statement = request.statement
            if statement.data is None:
                return _answer(_run(connection, statement.sql, request))
            with infile(statement.data) as path:
                return _answer(_run(connection, statement.reading_from(path), request))


def _prepare(connection: Any, request: Request) -> None:
    if request.database != DEFAULT_DATABASE:
        _query(connection, f"USE {_identifier(request.database)}".encode())
    settings = _SERVER_DEFAULTS | dict(request.settings)
    listed = ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items())
    _query(connection, f"SET {listed}".encode())


def _run(connection: Any, sql: bytes, request: Request) -> Any:
    return _query(connection, sql, request.format, dict(request.parameters))


def _query(
    connection: Any, sql: bytes, fmt: str = DEFAULT_FORMAT, params: dict[str, str] | None = None
) -> Any:
    try:
        return connection.query(sql, fmt, params=params or {})
    except (chdb.ChdbError, RuntimeError) as error:  # the library raises either
        raise _refusal(str(error)) from error


def _refusal(message: str) -> Refusal:
    found = _CODE.search(message)
    if found is None:
        return Refusal(STD_EXCEPTION, message)
    return Refusal(int(found[1]), message[found.start() :].strip())


def _answer(result: Any) -> Answer:
    figures = {
        "read_rows": result.storage_rows_read(),
        "read_bytes": result.storage_bytes_read(),
        "written_rows": result.rows_written(),
        "written_bytes": result.bytes_written(),
        "total_rows_to_read": "0",
        "result_rows": result.rows_read(),
        "result_bytes": result.bytes_read(),
        "elapsed_ns": int(result.elapsed() * 1_000_000_000),
    }
    return Answer(result.bytes(), {name: str(figure) for name, figure in figures.items()})


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
