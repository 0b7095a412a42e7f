"""A server that speaks scripted bytes, and how the transport's tests ask it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from workers.providers.http.request import build_request
from workers.providers.http.response import read_all
from workers.providers.transport import UpstreamTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENT = {"connect": 2.0, "read": 2.0, "write": 2.0, "pool": 2.0}
SOON_SECONDS = 0.25  # a cancelled call must have left its socket by then
MEBIBYTE = 1 << 20


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[bytes, bytes]:
        """Head and body of the next request; IncompleteReadError once the client has closed."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head:
            return head, await self._chunks()
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return head, await self.reader.readexactly(int(line.split(b":")[1]))
        return head, b""

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Returns when the client has closed its end."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Make = Callable[..., UpstreamTransport]
Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    def __init__(self, script: Script, scheme: str) -> None:
        self._script = script
        self._scheme = scheme
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0
        self.open = 0
        self.most_open = 0

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(f"{self._scheme}://localhost:{self.port}/v1/chat?x=1")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        async with asyncio.timeout(2):
            while self._tasks:  # noqa: ASYNC110 - the event is not ours to set
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def upstream(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    server = Upstream(script, "https" if tls else "http")
    listener = await asyncio.start_server(server.serve, "localhost", 0, ssl=tls, limit=MEBIBYTE)
    port = listener.sockets[0].getsockname()[1]
    listener.close()  # `localhost` may be two addresses with two ports: take one for both
    await listener.wait_closed()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", port, ssl=tls, limit=MEBIBYTE)
    server.port = port
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


def always(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


def once(answer: bytes) -> Script:
    """Answers one request, then closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return script


def ask(server: Upstream, content: bytes = b"{}", **timeouts: float) -> httpx.Request:
    return build_request(server.url, [], content, timeouts=PATIENT | timeouts)


def streamed(server: Upstream, parts: AsyncIterator[bytes], **headers: str) -> httpx.Request:
    return httpx.Request(
        "POST", server.url, content=parts, headers=headers, extensions={"timeout": PATIENT}
    )


async def fetch(transport: UpstreamTransport, request: httpx.Request) -> bytes:
    return await read_all(await transport.handle_async_request(request), MEBIBYTE)


async def collect(received: bytearray, response: httpx.Response) -> None:
    async for piece in response.aiter_raw():
        received += piece


async def eventually(holds: Callable[[], bool], seconds: float = 1.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - `holds` may look anywhere
            await asyncio.sleep(0.002)


def idle(transport: UpstreamTransport) -> int:
    return sum(len(pool._idle) for pool in transport._pools.values())
