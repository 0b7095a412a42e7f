"""The three servers of one data directory: started together, watched, restarted, stopped.

Starting takes about a second the first time. The calls block; they are for a supervisor and for
tests, not for an event loop that serves requests.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.embedded.clickhouse import ClickHouseServer
from shared.embedded.ports import PortBook
from shared.embedded.postgres import PostgresServer
from shared.embedded.process import (
    POLL_SECONDS,
    EmbeddedServerError,
    Launch,
    ServerProcess,
    end_forgotten,
    try_lock,
)
from shared.embedded.server import Server, ServerName
from shared.embedded.valkey import ValkeyServer

START_LIMIT_SECONDS = 60.0  # a second on a laptop; recovery after a kill may have a log to read
PORT_ATTEMPTS = 5  # another program may take a port between our look and the server's bind
# Postgres comes last: its first start makes the cluster while the other two are coming up.
_ORDER: tuple[ServerName, ...] = ("valkey", "clickhouse", "postgres")


@dataclass(frozen=True, slots=True)
class GivenUrls:
    """Servers that exist already; each one given is not started."""

    valkey: str | None = None
    postgres: str | None = None
    clickhouse: str | None = None


@dataclass(frozen=True, slots=True)
class ServerUrls:
    valkey_url: str
    database_url: str
    clickhouse_url: str


@dataclass(slots=True)
class _Running:
    server: Server
    process: ServerProcess


class EmbeddedServers:
    """One owner per data directory: a second one is refused while the first lives.

    `ports` fixes ports by name; 0 or a missing name picks a free one and remembers it in the data
    directory. `fsync=False` lets Postgres skip the disk, for tests.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Mapping[ServerName, int] | None = None,
        given: GivenUrls | None = None,
        fsync: bool = True,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._fixed_ports = {name: port for name, port in (ports or {}).items() if port}
        self._given: dict[ServerName, str | None] = _by_name(given or GivenUrls())
        self._fsync = fsync
        self._owner: int | None = None
        self._running: dict[ServerName, _Running] = {}

    @property
    def urls(self) -> ServerUrls:
        """Known once started; the given ones as they were given."""
        return ServerUrls(
            valkey_url=self._url("valkey"),
            database_url=self._url("postgres"),
            clickhouse_url=self._url("clickhouse"),
        )

    @property
    def pids(self) -> dict[ServerName, int]:
        return {name: running.process.pid for name, running in self._running.items()}

    def alive(self) -> dict[ServerName, bool]:
        """Of the servers started here, whether the process still runs."""
        return {name: running.process.alive for name, running in self._running.items()}

    def start(self) -> None:
        """Returns when all answer. On an error, what was started is stopped again."""
        self._own()
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends all, at once, gracefully where they let us. Repeatable."""
        for running in self._running.values():
            running.process.ask_to_stop()
        for running in self._running.values():
            running.process.wait_until_stopped()
        self._running.clear()
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    def restart(self, name: ServerName) -> None:
        """The same data and the same port, whether it died or still runs."""
        running = self._running[name]
        running.process.ask_to_stop()
        running.process.wait_until_stopped()
        running.server.prepare()
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while True:
            running.process = ServerProcess.spawn(self._launch(running.server))
            if _answers_before(deadline, running):
                break
            if not _port_was_taken(running) or time.monotonic() > deadline:
                raise EmbeddedServerError(f"{name} died: {running.process.obituary}")
            time.sleep(POLL_SECONDS)  # clients know this port: wait for it
        running.server.finish()

    def _start_all(self) -> None:
        book = PortBook(self._folder / "ports.json")
        names = [name for name in _ORDER if self._given[name] is None]
        for name in names:
            end_forgotten(self._folder, name)  # before ports are looked at: it holds one
        makers = {name: self._maker(name) for name in names}
        deadline = time.monotonic() + START_LIMIT_SECONDS
        for name in names:
            self._spawn(makers[name](self._port(book, name)))
        for name in names:
            self._await(name, makers[name], book, deadline=deadline)

    def _await(
        self,
        name: ServerName,
        make: Callable[[int], Server],
        book: PortBook,
        *,
        deadline: float,
    ) -> None:
        for _ in range(PORT_ATTEMPTS):
            running = self._running[name]
            if _answers_before(deadline, running):
                running.server.finish()
                return
            if name in self._fixed_ports or not _port_was_taken(running):
                break
            self._spawn(make(self._port(book, name)))
        raise EmbeddedServerError(f"{name} died: {self._running[name].process.obituary}")

    def _spawn(self, server: Server) -> None:
        server.prepare()
        self._running[server.name] = _Running(server, ServerProcess.spawn(self._launch(server)))

    def _maker(self, name: ServerName) -> Callable[[int], Server]:
        if name == "valkey":
            return lambda port: ValkeyServer(self._data_dir, port)
        if name == "clickhouse":
            return lambda port: ClickHouseServer(self._data_dir, port)
        return lambda port: PostgresServer(self._data_dir, port, fsync=self._fsync)

    def _launch(self, server: Server) -> Launch:
        return Launch(
            name=server.name,
            command=server.command(),
            environment=server.environment,
            folder=self._folder,
            stop_signal=server.stop_signal,
            account=server.account,
        )

    def _port(self, book: PortBook, name: ServerName) -> int:
        return self._fixed_ports.get(name) or book.port_for(name, avoid=self._fixed_ports.values())

    def _url(self, name: ServerName) -> str:
        return self._given[name] or self._running[name].server.url

    @property
    def _folder(self) -> Path:
        return self._data_dir / "servers"

    def _own(self) -> None:
        """The lock ends with this process, however it ends; the servers do not inherit it."""
        # Others may pass through, as Postgres' account must under root, and see nothing. A directory
        # that exists stays as it is.
        self._data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.open(self._folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_lock(owner):
            os.close(owner)
            raise EmbeddedServerError(f"{self._data_dir} is in use by another process")
        self._owner = owner


def _by_name(given: GivenUrls) -> dict[ServerName, str | None]:
    return {
        "valkey": given.valkey,
        "postgres": given.postgres,
        "clickhouse": given.clickhouse,
    }


def _answers_before(deadline: float, running: _Running) -> bool:
    """False if it died; an error at the deadline."""
    while running.process.alive:
        if running.server.answers():
            return True
        if time.monotonic() > deadline:
            name, process = running.server.name, running.process
            raise EmbeddedServerError(f"{name} did not answer in time: {process.obituary}")
        time.sleep(POLL_SECONDS)
    return False


def _port_was_taken(running: _Running) -> bool:
    """All three say it in these words, in one case or another."""
    return "address already in use" in running.process.obituary.lower()
