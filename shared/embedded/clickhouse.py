"""The ClickHouse engine from its wheel, behind our own HTTP front, as a process of its own."""

import http.client
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import shared
from shared.embedded.root import Account
from shared.embedded.server import (
    ASK_LIMIT_SECONDS,
    SERVER_ENVIRONMENT,
    ServerName,
    package_folder,
)

DATABASE = "gateway"


class ClickHouseServer:
    name: ServerName = "clickhouse"
    stop_signal = signal.SIGTERM
    account: Account | None = None

    def __init__(self, data_dir: Path, port: int) -> None:
        self._folder = data_dir / "clickhouse"
        self._port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/{DATABASE}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The front is a module of ours: it is found where this one was, installed or not."""
        return {**SERVER_ENVIRONMENT, "PYTHONPATH": str(Path(shared.__path__[0]).parent)}

    def prepare(self) -> None:
        package_folder("chdb", wheel="chdb-core")  # to say so now, rather than in a child's log
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def command(self) -> tuple[str, ...]:
        # -P: the working directory is no place to import from.
        return (
            *(sys.executable, "-P", "-m", "shared.embedded.clickhouse_front"),
            *("--path", str(self._folder), "--port", str(self._port), "--database", DATABASE),
        )

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ASK_LIMIT_SECONDS)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def finish(self) -> None:
        """Nothing to do: the front creates the database before it answers."""
