"""A command multiplexer for Valkey: many callers, one socket, one write per loop turn.

redis-py costs 50 to 110 µs of CPU for a lone awaited command; the request path cannot pay that three
times a request. Here a command is packed by hiredis, gathered with the others of the same turn of
the loop, written once, and its answer set on a plain future. Everything that is not on the request
path uses redis-py.

A connection heals itself: it is opened again with backoff, and the scripts are loaded each time.
A call that was never written raises `Disconnected`; one whose answer was lost raises `AnswerLost`:
it may have been carried out, so only calls that may be repeated are sent again.
"""

import asyncio
import contextlib
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import structlog
from typing_extensions import override

from shared.valkey.scripts import ALL, Script

CONNECT_SECONDS = 3.0
FIRST_BACKOFF_SECONDS = 0.02
MAX_BACKOFF_SECONDS = 1.0
WATCH_SECONDS = 1.0
"""How often a connection looks for an answer that is overdue."""

NOT_HERE = ("NOSCRIPT", "READONLY", "LOADING", "MASTERDOWN", "MOVED")
"""Answers of a server that cannot serve us now, or has forgotten the scripts. Nothing was done."""

log = structlog.get_logger()

Word = bytes | str | int | float


def _pack(words: Sequence[Word]) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub says 1-tuple
    return packed


class ValkeyAway(Exception):
    """The server cannot be asked right now. The base of the two cases below."""


class Disconnected(ValkeyAway):
    """There is no connection; the command was not sent."""


class AnswerLost(ValkeyAway):
    """The connection broke after the command was written: it may have been carried out."""


class CommandRefused(Exception):
    """The server answered with an error."""


class Address:
    """Where a Valkey URL points: redis[s]://[user:password@]host:port/db or unix:///path?db=n."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss", "valkey", "valkeys", "unix"}:
            raise ValueError(f"not a Valkey URL scheme: {parts.scheme!r}")
        self.username = unquote(parts.username or "")
        self.password = unquote(parts.password or "")
        self.path = parts.path if parts.scheme == "unix" else None
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 6379
        database = parse_qs(parts.query).get("db", [""])[0] or (
            "" if self.path else parts.path.strip("/")
        )
        self.database = int(database or 0)
        self.tls = ssl.create_default_context() if parts.scheme in {"rediss", "valkeys"} else None

    async def open(self, protocol: Callable[[], "_Protocol"]) -> "_Protocol":
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(protocol, self.path))[1]
        return (await loop.create_connection(protocol, self.host, self.port, ssl=self.tls))[1]


class _Protocol(asyncio.Protocol):
    """One connection's life: answers are matched to waiters by order."""

    def __init__(self, on_push: Callable[[Any], None] | None, on_lost: Callable[[], None]) -> None:
        self.waiters: deque[asyncio.Future[Any]] = deque()
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()
        self.reads = 0
        self.on_push = on_push
        self._on_lost = on_lost
        self._reader = hiredis.Reader()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    @override
    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(AnswerLost("the connection to Valkey was lost"))
                waiter.exception()  # a caller that was cancelled must not leave a warning behind
        self.waiters.clear()
        if not self.lost.done():
            # At once, before those who waited wake up: a command given to a dead connection would
            # never be answered.
            self._on_lost()
            self.lost.set_result(error)

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    @override
    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self.reads += 1
        waiters, gets = self.waiters, self._reader.gets
        answer = gets()
        while answer is not False:
            if self.on_push is not None and isinstance(answer, list) and answer[0] == b"smessage":
                self.on_push(answer)
            elif not (waiter := waiters.popleft()).done():
                if isinstance(answer, hiredis.ReplyError):
                    waiter.set_exception(self._refusal(str(answer)))
                else:
                    waiter.set_result(answer)
            answer = gets()

    def _refusal(self, text: str) -> Exception:
        if not text.startswith(NOT_HERE):
            return CommandRefused(text)
        # Opening the connection again finds the new primary and loads the scripts.
        if self.transport is not None:
            self.transport.abort()
        return Disconnected(text)


class Client:
    """One self-healing connection. `run` keeps it open; everything else may be called meanwhile."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        answer_seconds: float = 5.0,
        on_push: Callable[[Any], None] | None = None,
        on_connect: Callable[["Client"], Any] | None = None,
    ) -> None:
        """`answer_seconds` bounds every wait for an answer: past it the connection is dropped.

        `on_push` gets sharded pub/sub messages as [b"smessage", channel, text]. `on_connect` is
        awaited on every new connection; if it fails, the connection is opened again.
        """
        self._address = Address(url)
        self._name = name
        self._answer_seconds = answer_seconds
        self._on_push = on_push
        self._on_connect = on_connect
        self._protocol: _Protocol | None = None
        self._out: list[bytes] = []
        self._is_greeted = False
        self._ready = asyncio.Event()
        self.connections = 0
        self.connected_since = 0.0
        """Loop time of the present connection's start; 0 while there is none."""

    @property
    def is_connected(self) -> bool:
        return self._ready.is_set()

    async def connected(self, seconds: float) -> None:
        """Waits for a connection; TimeoutError when there is none in time."""
        async with asyncio.timeout(seconds):
            await self._ready.wait()

    def call(self, *words: Word) -> asyncio.Future[Any]:
        """Sends one command with this turn's others; the future holds the answer."""
        return self._send(_pack(words))

    def script(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Word]
    ) -> asyncio.Future[Any]:
        return self._send(_pack((b"EVALSHA", script.sha, len(keys), *keys, *args)))

    def _send(self, packed: bytes) -> asyncio.Future[Any]:
        if not self._is_greeted or self._protocol is None:
            raise Disconnected("there is no connection to Valkey")
        return self._write(self._protocol, packed)

    def _write(self, protocol: _Protocol, packed: bytes) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        protocol.waiters.append(waiter)
        if not self._out:
            loop.call_soon(self._flush, protocol)
        self._out.append(packed)
        return waiter

    def _flush(self, protocol: _Protocol) -> None:
        out, self._out = self._out, []
        if protocol.transport is not None:
            protocol.transport.write(b"".join(out) if len(out) > 1 else out[0])

    async def run(self) -> None:
        """Keeps the connection open until cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        try:
            while True:
                try:
                    protocol = await self._open()
                except (OSError, TimeoutError, ValkeyAway, CommandRefused) as error:
                    self._drop()
                    if backoff >= MAX_BACKOFF_SECONDS:
                        log.warning(
                            "Valkey cannot be reached",
                            action="valkey_away",
                            error=type(error).__name__,
                        )
                    await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
                    backoff = min(MAX_BACKOFF_SECONDS, backoff * 2)
                    continue
                backoff = FIRST_BACKOFF_SECONDS
                await self._watch(protocol)
        finally:
            self._drop()

    async def _open(self) -> _Protocol:
        self._out.clear()
        async with asyncio.timeout(CONNECT_SECONDS):
            protocol = await self._address.open(lambda: _Protocol(self._on_push, self._gone))
            self._protocol = protocol
            await asyncio.gather(*(self._write(protocol, words) for words in self._greeting()))
        self.connections += 1
        self.connected_since = asyncio.get_running_loop().time()
        self._is_greeted = True
        if self._on_connect is not None:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._on_connect(self)
        self._ready.set()
        return protocol

    def _greeting(self) -> list[bytes]:
        address = self._address
        commands: list[tuple[Word, ...]] = []
        if address.password:
            user = (address.username,) if address.username else ()
            commands.append((b"AUTH", *user, address.password))
        if address.database:
            commands.append((b"SELECT", address.database))
        commands.append((b"CLIENT", b"SETNAME", self._name))
        commands += [(b"SCRIPT", b"LOAD", script.text) for script in ALL]
        return [_pack(command) for command in commands]

    async def _watch(self, protocol: _Protocol) -> None:
        """Returns when the connection is lost, or drops it when an answer is overdue."""
        seen: tuple[object, ...] = ()
        overdue = 0.0
        while not protocol.lost.done():
            await asyncio.wait([protocol.lost], timeout=WATCH_SECONDS)
            # Bytes that move are a sign of life too: a large answer, or a large command, takes time.
            now = (*list(protocol.waiters)[:1], protocol.reads, protocol.unsent)
            overdue = overdue + WATCH_SECONDS if protocol.waiters and now == seen else 0.0
            seen = now
            if overdue >= self._answer_seconds:
                log.warning("Valkey stopped answering", action="valkey_silent")
                break
        self._drop()

    def _gone(self) -> None:
        self._is_greeted = False
        self._ready.clear()
        self.connected_since = 0.0

    def _drop(self) -> None:
        self._gone()
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()
            # abort() reports the loss in a later turn; waiters must not outlive this one.
            protocol.connection_lost(None)


@contextlib.asynccontextmanager
async def open_client(url: str, *, name: str, seconds: float = 10.0) -> Any:
    """A client that is connected, for the length of a block. What the block raises comes out as it
    is; where there is no server, TimeoutError."""
    client = Client(url, name=name)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(client.run())
            try:
                await client.connected(seconds)
                yield client
            finally:
                running.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # the group has no other task that could raise
