"""One HTTP exchange: reads the request, writes the answer, notices a client that leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from workers.simulator.connection import EXTENSION, Connection
from workers.simulator.problems import Refused
from workers.simulator.tap import Tap

# What ASGI itself says of its messages (asgi.readthedocs.io, "Applications").
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

BODY_SECONDS = 120.0  # a 100 MiB body over a slow loopback, with room
BODY_BYTES = 128 * 1024 * 1024  # above the gateway's own bound of 100 MiB, so that that one is met
HANG_UP_SECONDS = 5.0  # what was written gets this long to leave before the socket is torn down
SLICE_BYTES = 256 * 1024  # a longer body leaves in slices, so that a client that goes is noticed
JSON = b"application/json"


class ClientClosed(Exception):
    """The client closed the connection before its answer was complete."""


class Exchange:
    """`write` and `respond` raise ClientClosed once the client has gone. They block while the
    client reads slowly; the caller sets the deadline."""

    __slots__ = ("_connection", "_receive", "_send", "headers", "method", "path", "query", "tap")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._connection: Connection = scope["extensions"][EXTENSION]["connection"]
        self._receive = receive
        self._send = send
        self.tap: Tap | None = None
        """Is told of every body byte that has left."""

    @property
    def last_segment(self) -> str:
        return self.path.rpartition("/")[2]

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    async def body(self) -> bytes:
        """The whole body. Raises ClientClosed or Refused (408, 413)."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._collected()
        except TimeoutError as error:
            raise Refused(408, "The request body did not come.", code="timeout") from error

    async def _collected(self) -> bytes:
        return b"".join([part async for part in self.parts()])

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ClientClosed or Refused (413)."""
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientClosed
            more = message["more_body"]
            size += len(message["body"])
            if size > BODY_BYTES:
                raise Refused(413, "The request body is too large.", code="request_too_large")
            yield message["body"]

    async def start(self, status: int, headers: Headers) -> None:
        """The head of an answer whose body follows in pieces."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        if self._connection.closing:
            raise ClientClosed
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        # While it waited for a slow reader, uvicorn drops the data of one that went away.
        if self._connection.lost:
            raise ClientClosed
        if self.tap is not None:
            self.tap.update(data)

    async def respond(
        self, status: int, body: bytes, *, kind: bytes = JSON, headers: Headers = ()
    ) -> None:
        """A whole answer at once."""
        head = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers]
        await self.start(status, head)
        for start in range(0, len(body) - SLICE_BYTES, SLICE_BYTES):
            await self.write(body[start : start + SLICE_BYTES])
        await self.write(body[(len(body) - 1) // SLICE_BYTES * SLICE_BYTES :], last=True)

    async def respond_json(self, status: int, payload: object, *, headers: Headers = ()) -> None:
        await self.respond(status, msgspec.json.encode(payload), headers=headers)

    async def hang_up(self) -> None:
        """Closes the socket in the middle of the answer, after what was written has left.

        Not an RST: that may destroy bytes the peer has not read yet, and then nobody could say
        how many tokens it got.
        """
        self._connection.close()
        try:
            async with asyncio.timeout(HANG_UP_SECONDS):
                await self._gone()
        except TimeoutError:
            self._connection.abort()
            await self._gone()

    async def attended(self, work: Coroutine[None, None, None]) -> None:
        """Runs `work`; stops it with ClientClosed as soon as the client has gone.

        For work that waits: work that only writes learns it from `write`.
        """
        closed = False
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                await work
                watch.cancel()
        except* ClientClosed:
            closed = True
        if closed:
            raise ClientClosed

    async def _watch(self) -> None:
        await self._gone()
        # uvicorn also says "disconnect" after a complete answer on a connection that lives on.
        if self._connection.closing:
            raise ClientClosed

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
