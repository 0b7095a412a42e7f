"""The upstream's answer: a status, headers, and a body that arrives while it is read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol

import httpx
from typing_extensions import override

Stage = Literal["read", "write", "idle"]


class Link(Protocol):
    """What an answer needs of the connection it arrives on."""

    def watch(self, stage: Stage, seconds: float | None) -> None:
        """Fails the answer when nothing moves for so long."""

    def resume(self) -> None:
        """The buffer was emptied: go on reading."""

    def close(self) -> None:
        """Closes the socket at once; may be repeated."""


class ResponseTooLarge(httpx.TransportError):
    """The body is longer than the caller was ready to hold; its connection is closed."""


class Answer(httpx.AsyncByteStream):
    """One answer. Filled by its connection, read by one task.

    Bytes come as the socket gave them, what has gathered since the last read in one piece. Bytes
    that arrived before a failure are handed out before the failure is raised. Who stops reading
    before the end calls `aclose`, which closes the socket, and so cancels the call upstream.
    """

    def __init__(
        self,
        *,
        link: Link,
        request: httpx.Request,
        loop: asyncio.AbstractEventLoop,
        read_seconds: float | None,
    ) -> None:
        self.request = request
        self.status = 0  # until the head is here
        self.headers: list[tuple[bytes, bytes]] = []
        self.version = ""
        self.size = 0  # bytes gathered and not yet read
        self.waiting = False
        self.on_settled: Callable[[], object] | None = None
        """Called at the moment it is known what comes, while a question is still being sent."""
        self.error: Exception | None = None
        self._link: Link | None = link  # None once the connection belongs to others again
        self._loop = loop
        self._read_seconds = read_seconds
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known what comes: an answer, or none."""
        return self.status != 0 or self.error is not None

    @property
    def over(self) -> bool:
        """Whether the body has ended and all of it was read."""
        return self._link is None and self.error is None and not self._pieces

    # What the connection tells.

    def begin(self, status: int, headers: list[tuple[bytes, bytes]], version: str) -> None:
        self.status, self.headers, self.version = status, headers, version
        self._settle()

    def push(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)
        self.wake()

    def end(self) -> None:
        self._link = None
        self.wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._link = None
        self._settle()

    def _settle(self) -> None:
        if self.on_settled is not None:
            self.on_settled()
        self.wake()

    def wake(self) -> None:
        if self.waiting:
            self.waiting = False
            waiter = self._waiter
            if waiter is not None and not waiter.done():  # done: its task was just cancelled
                waiter.set_result(None)

    # What the caller asks.

    async def wait(self, stage: Stage, seconds: float | None) -> None:
        """Until something changed. Cancelled: the call is over, so the socket is closed."""
        link = self._link
        if link is None:
            return
        waiter = self._waiter = self._loop.create_future()
        self.waiting = True
        link.watch(stage, seconds)
        try:
            await waiter
        except BaseException:
            await self.aclose()
            raise

    async def head(self) -> None:
        """Until status and headers are here. Raises what befell the connection before that."""
        while not self.status:
            if self.error is not None:
                raise self.error
            await self.wait("read", self._read_seconds)

    async def read(self) -> bytes:
        """All that gathered since the last read, waiting for at least one byte; b"" at the end."""
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self._link is None:
                return b""
            await self.wait("read", self._read_seconds)
        return self._take()

    async def read_all(self, limit: int) -> bytes:
        """The whole body, or `ResponseTooLarge` beyond `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                await self.aclose()
                raise ResponseTooLarge(f"more than {limit} bytes", request=self.request)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @override
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self  # no generator: one left early would have to be closed by a task of its own

    async def __anext__(self) -> bytes:
        piece = await self.read()
        if not piece:
            raise StopAsyncIteration
        return piece

    @override
    async def aclose(self) -> None:
        """Frees the connection; before the end of the body that means closing it."""
        link, unread = self._link, self._pieces
        if link is not None or unread:
            self.fail(self.error or httpx.StreamClosed())  # a later read must not see an end
            unread.clear()
            self.size = 0
        if link is not None:
            link.close()

    def _take(self) -> bytes:
        pieces = self._pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        if self._link is not None:
            self._link.resume()
        return taken


async def read_all(response: httpx.Response, limit: int) -> bytes:
    """The raw body of an answer from any httpx transport, at most `limit` bytes of it."""
    stream = response.stream
    if isinstance(stream, Answer):
        return await stream.read_all(limit)
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit:
            await response.aclose()
            raise ResponseTooLarge(f"more than {limit} bytes", request=response.request)
    return bytes(body)


def is_over(response: httpx.Response) -> bool:
    """Whether the body is known to have ended, all of it read: there is nothing to wait for."""
    stream = response.stream
    return isinstance(stream, Answer) and stream.over
