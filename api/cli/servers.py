"""The three stores as the supervisor sees them: embedded ones run in threads, given ones are left alone."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from api.cli.slot import Backoff
from shared.clock import Clock
from shared.embedded.process import EmbeddedServerError
from shared.embedded.server import ServerName
from shared.embedded.servers import EmbeddedServers, GivenUrls

WATCH_SECONDS = 0.1
"""How long a dead server may go unnoticed. A look costs three system calls."""


class Servers:
    """A server whose URL the environment gives is not started, watched or stopped.

    `changed` is called whenever one was started.
    """

    def __init__(
        self,
        data_dir: Path,
        environment: Mapping[str, str],
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        given = GivenUrls(
            valkey=environment.get("VALKEY_URL") or None,
            postgres=environment.get("DATABASE_URL") or None,
            clickhouse=environment.get("CLICKHOUSE_URL") or None,
        )
        self._embedded = EmbeddedServers(data_dir, given=given)
        # Cancelling a wait does not end the thread: the next call must come after it.
        self._one_call = threading.Lock()
        self._clock = clock
        self._changed = changed
        self._backoffs: dict[str, Backoff] = {}
        self._born: dict[str, float] = {}
        self._log = structlog.get_logger()

    @property
    def addresses(self) -> dict[str, str]:
        """Known once started, under the names of their environment variables."""
        urls = self._embedded.urls
        return {
            "VALKEY_URL": urls.valkey_url,
            "DATABASE_URL": urls.database_url,
            "CLICKHOUSE_URL": urls.clickhouse_url,
        }

    def pids(self) -> dict[str, list[int]]:
        return {name: [pid] for name, pid in self._embedded.pids.items()}

    async def start(self) -> None:
        """Returns when all answer. Raises EmbeddedServerError."""
        await self._call(self._embedded.start)
        self._born = dict.fromkeys(self._embedded.pids, self._clock.monotonic())
        self._changed()

    async def watch(self) -> None:
        """Never returns; a server that died is started again on its data and its port."""
        while True:
            for name, alive in self._embedded.alive().items():
                if not alive:
                    await self._mend(name)
            await asyncio.sleep(WATCH_SECONDS)

    async def stop(self) -> None:
        await self._call(self._embedded.stop)

    async def _mend(self, name: ServerName) -> None:
        lived = self._clock.monotonic() - self._born[name]
        wait = self._backoffs.setdefault(name, Backoff()).after(lived)
        self._log.warning(
            "a server died and is started again",
            action="server_restart",
            server=name,
            wait_seconds=wait,
        )
        await asyncio.sleep(wait)
        self._born[name] = self._clock.monotonic()
        try:
            await self._call(lambda: self._embedded.restart(name))
        except EmbeddedServerError as error:
            # Not the end: a full disk or a taken port may pass, and the queue waits meanwhile.
            self._log.error(
                "a server did not start", action="server_restart_failed", error=str(error)
            )
        self._changed()

    async def _call(self, blocking: Callable[[], None]) -> None:
        """Runs one call in a thread, after the one before has really ended."""

        def alone() -> None:
            with self._one_call:
                blocking()

        await asyncio.to_thread(alone)
