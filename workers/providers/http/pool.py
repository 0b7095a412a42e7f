"""The connections to one origin: the youngest idle one first, a bounded number, a queue for more."""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass

import httpx

from workers.providers.http.connection import Connection, PeerNotAttested, Timeouts

HTTP_PORT, HTTPS_PORT = 80, 443
NO_PINS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pool may hold."""

    connections_per_origin: int = 1000  # above a worker's concurrency; a file descriptor each
    idle_seconds: float = 30.0  # below the 60 s after which common proxies drop idle connections


class Pool:
    """A slot is held from before the dial until the socket is closed, so the bound is never passed.

    A freed connection or slot goes to the caller who has waited longest; a newcomer takes only
    what nobody waits for.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None,
        limits: Limits,
        pins: frozenset[str] = NO_PINS,
    ) -> None:
        """`pins`: what the peer's key may be (`NetworkStream.spki`); none: any that has a name's
        certificate."""
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._limits = limits
        self._pins = pins
        self._idle: list[Connection] = []  # the end is the youngest
        self._connections: set[Connection] = set()
        self._slots = 0  # open connections and dials
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False
        self._retired = False

    @property
    def slots(self) -> int:
        return self._slots

    def take(self) -> Connection | None:
        """An idle connection that is not known to be closed, at once or not at all."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    async def acquire(self, request: httpx.Request, timeouts: Timeouts) -> Connection:
        """A connection, new or freed by others. Raises PoolTimeout, ConnectTimeout, ConnectError."""
        connection = await self._reserve(request, timeouts.get("pool"))
        if connection is not None:
            return connection
        try:
            return await self._dial(request, timeouts.get("connect"))
        except BaseException:
            self._free_slot()
            raise

    async def _reserve(self, request: httpx.Request, seconds: float | None) -> Connection | None:
        """A freed connection, or None: a slot is the caller's to dial with."""
        try:
            async with asyncio.timeout(seconds):
                while self._slots >= self._limits.connections_per_origin:
                    connection = await self._turn()
                    if connection is None or connection.usable:
                        return connection
                    connection.close()  # lost on its way here
        except TimeoutError as error:
            raise httpx.PoolTimeout(
                f"all {self._slots} connections were busy for {seconds} s", request=request
            ) from error
        self._slots += 1
        return None

    async def _turn(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # given something in the same moment: on to the next
                self._return(waiter.result())
            elif waiter in self._waiters:  # a giver may have passed it over already
                self._waiters.remove(waiter)
            raise

    def _return(self, connection: Connection | None) -> None:
        if connection is None:
            self._free_slot()
        elif connection.usable:
            self.checkin(connection)

    async def _dial(self, request: httpx.Request, seconds: float | None) -> Connection:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise httpx.ConnectError("the transport is closed", request=request)
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop),
                    self._host,
                    self._port,
                    ssl=self._ssl_context,
                    server_hostname=self._host if self._ssl_context else None,
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"not within {seconds} s", request=request) from error
        except OSError as error:  # ssl.SSLError among them
            raise httpx.ConnectError(str(error), request=request) from error
        self._check_peer(connection, request)
        # Lost already: it will not say so again, so it must not be counted nor written to.
        if not self._may_keep(connection):
            connection.close()
            raise httpx.ConnectError("closed right after connecting", request=request)
        self._connections.add(connection)
        return connection

    def _check_peer(self, connection: Connection, request: httpx.Request) -> None:
        """Right after the handshake, while nobody can write to it yet."""
        if self._pins and connection.network_stream.spki not in self._pins:
            connection.close()
            raise PeerNotAttested("the peer's key is not an attested one", request=request)

    def _may_keep(self, connection: Connection) -> bool:
        return connection.usable and not self._closed

    def checkin(self, connection: Connection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._retired:
            connection.close()
            return
        self._idle.append(connection)
        connection.watch("idle", self._limits.idle_seconds)

    def forget(self, connection: Connection) -> None:
        # One that fails while it is dialled is unknown here: its slot is the dialler's to free.
        if connection in self._connections:
            self._connections.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._free_slot()

    def _free_slot(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot passes from hand to hand, still counted
                return
        self._slots -= 1

    def retire(self) -> None:
        """Keeps no connection any more: idle ones are closed now, busy ones when they are done."""
        self._retired = True
        for connection in list(self._idle):
            connection.close()

    def close(self) -> None:
        """Closes all, busy ones too. Those who wait for a connection are refused."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._slots += 1  # the waiter finds the pool closed and frees it
                waiter.set_result(None)
        for connection in list(self._connections):
            connection.shut()
