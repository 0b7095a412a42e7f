"""The upstream transport against servers that speak scripted bytes, on both event loops."""

import asyncio
import contextlib
import datetime
import ipaddress
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import override

from workers.providers.http.connection import PAUSE_ABOVE_BYTES, StaleConnectionError
from workers.providers.http.pool import Limits
from workers.providers.http.request import build_request
from workers.providers.http.response import Answer, ResponseTooLarge, read_all
from workers.providers.transport import UpstreamTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENT = {"connect": 2.0, "read": 2.0, "write": 2.0, "pool": 2.0}
SOON_SECONDS = 0.25  # a cancelled call must have left its socket by then
MEBIBYTE = 1 << 20


@pytest.fixture(
    name="_asyncio_loop_factory",  # pytest-asyncio's: here every test runs on both loops
    autouse=True,
    params=[asyncio.new_event_loop, uvloop.new_event_loop],
    ids=["asyncio", "uvloop"],
)
def loop_factory(request: pytest.FixtureRequest) -> object:
    return request.param


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


@pytest.fixture(scope="module")
def system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # made once: reading the system's roots takes 40 ms


@pytest.fixture
def make(system_trust: ssl.SSLContext) -> Make:
    def transport(**limits: float) -> UpstreamTransport:
        return UpstreamTransport(ssl_context=system_trust, limits=Limits(**limits))  # type: ignore[arg-type]

    return transport


@pytest.fixture
async def transport(make: Make) -> AsyncIterator[UpstreamTransport]:
    """Afterwards nothing is open, and no callback raised where only the loop could see it."""
    unseen: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    async with make() as made:
        yield made
    assert made.open_connections == 0
    assert unseen == []


# What goes out.


async def test_head_and_content_leave_in_one_write(transport: UpstreamTransport) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.reader.read(65536))
        await peer.send(OK)
        await peer.gone()

    async with upstream(script) as server:
        headers = [(b"Authorization", b"Bearer secret")]
        request = build_request(server.url, headers, b"{}", timeouts=PATIENT)
        response = await transport.handle_async_request(request)
        assert (response.status_code, await read_all(response, 10)) == (200, b"ok")
        host = server.url.netloc
    assert seen == [
        b"POST /v1/chat?x=1 HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: Bearer secret\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    ]


async def test_a_body_larger_than_every_buffer_arrives_whole(transport: UpstreamTransport) -> None:
    content = random.Random(1).randbytes(8 * MEBIBYTE)
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            bodies.append((await peer.request())[1])
            await peer.send(OK)

    async with upstream(script) as server:
        assert await fetch(transport, ask(server, content)) == b"ok"
        assert await fetch(transport, ask(server)) == b"ok"
        assert server.accepted == 1
    assert bodies == [content, b"{}"]


@pytest.mark.parametrize("headers", [{}, {"content-length": "600004"}], ids=["chunked", "length"])
async def test_a_streamed_body_arrives_whole(
    transport: UpstreamTransport, headers: dict[str, str]
) -> None:
    bodies: list[bytes] = []

    async def parts() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b""
        yield b"x" * 600_000
        await asyncio.sleep(0.01)
        yield b"cd"

    async def script(peer: Peer) -> None:
        while True:
            bodies.append((await peer.request())[1])
            await peer.send(OK)

    async with upstream(script) as server:
        for _ in range(2):
            assert await fetch(transport, streamed(server, parts(), **headers)) == b"ok"
        assert server.accepted == 1
    assert bodies == [b"ab" + b"x" * 600_000 + b"cd"] * 2


@pytest.mark.parametrize("declared", ["3", "5"])
async def test_a_streamed_body_of_another_length_than_declared_is_refused(
    transport: UpstreamTransport, declared: str
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    async with upstream(always(OK)) as server:
        with pytest.raises(httpx.LocalProtocolError):
            await fetch(transport, streamed(server, parts(), **{"content-length": declared}))
        assert transport.open_connections == 0


async def test_an_answer_that_comes_during_the_upload_ends_it(
    transport: UpstreamTransport,
) -> None:
    left = False

    class Endless(httpx.AsyncByteStream):
        @override
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal left
            try:
                while True:
                    yield b"x" * 100_000
                    await asyncio.sleep(0)
            finally:
                left = True

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await peer.gone()

    async with upstream(script) as server:
        headers = {"host": "localhost", "transfer-encoding": "chunked"}
        request = httpx.Request("POST", server.url, headers=headers, stream=Endless())
        response = await transport.handle_async_request(request)
        assert (response.status_code, await read_all(response, 10)) == (413, b"big")
        assert left
        assert transport.open_connections == 0  # half a question cannot be followed by another


async def test_an_answer_is_not_kept_waiting_by_a_part_that_does_not_come(
    transport: UpstreamTransport,
) -> None:
    class Slow(httpx.AsyncByteStream):
        @override
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    async with upstream(script) as server, asyncio.timeout(5):
        headers = {"host": "localhost", "transfer-encoding": "chunked"}
        request = httpx.Request("POST", server.url, headers=headers, stream=Slow())
        response = await transport.handle_async_request(request)
        assert (response.status_code, await read_all(response, 10)) == (401, b"no")
        assert transport.open_connections == 0


async def test_who_is_cancelled_while_a_part_is_awaited_closes_the_connection(
    transport: UpstreamTransport,
) -> None:
    left = asyncio.Event()

    class Slow(httpx.AsyncByteStream):
        @override
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                yield b"x"
                await asyncio.Event().wait()
            finally:
                left.set()

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with upstream(script) as server, asyncio.timeout(5):
        headers = {"host": "localhost", "transfer-encoding": "chunked"}
        request = httpx.Request("POST", server.url, headers=headers, stream=Slow())
        call = asyncio.create_task(transport.handle_async_request(request))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert left.is_set()
        assert transport.open_connections == 0


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", [(b"Host", b"a"), (b"X", b"1\r\nEvil: 1")]),
        ("POST", [(b"Host", b"a"), (b"X", b"1\nEvil: 1")]),
        ("POST", [(b"Host", b"a"), (b"X", b"1\rEvil: 1")]),
        ("POST", [(b"Host", b"a"), (b"X", b"1\0")]),
        ("POST", [(b"Host", b"a"), (b"X\r\nEvil", b"1")]),
        ("POST", [(b"Host", b"a"), (b"X:", b"1")]),
        ("POST", [(b"Host", b"a"), (b"", b"1")]),
        ("GET / HTTP/1.1\r\nEvil: 1\r\n", [(b"Host", b"a")]),
        ("GÉT", [(b"Host", b"a")]),
        ("CONNECT", [(b"Host", b"a")]),
        ("POST", []),
        ("POST", [(b"Host", b"a"), (b"host", b"b")]),
        ("POST", [(b"Host", b"a"), (b"Content-Length", b"1"), (b"content-length", b"1")]),
        ("POST", [(b"Host", b"a"), (b"Content-Length", b"+0")]),
        ("POST", [(b"Host", b"a"), (b"Content-Length", b"9")]),
        ("POST", [(b"Host", b"a"), (b"Transfer-Encoding", b"gzip")]),
        (
            "POST",
            [(b"Host", b"a"), (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")],
        ),
    ],
)
async def test_a_request_that_could_be_read_otherwise_never_reaches_a_socket(
    transport: UpstreamTransport, method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    async with upstream(always(OK)) as server:
        stream = httpx.ByteStream(b"")
        request = httpx.Request(method, server.url, headers=headers, stream=stream)
        with pytest.raises(httpx.LocalProtocolError) as refused:
            await transport.handle_async_request(request)
        assert refused.value.request is request
        assert server.accepted == 0


async def test_an_url_that_is_not_http_is_refused(transport: UpstreamTransport) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await transport.handle_async_request(httpx.Request("GET", "ftp://localhost/"))


# What comes in.


@pytest.mark.parametrize(
    ("method", "answer", "body", "kept"),
    [
        ("POST", OK, b"ok", True),
        ("POST", CHUNKED + b"2;ext=1\r\nok\r\n3\r\nfin\r\n0\r\nTrailer: 1\r\n\r\n", b"okfin", True),
        ("POST", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", False),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"", False),
        ("HEAD", CHUNKED, b"", False),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        (
            "POST",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + OK,
            b"ok",
            True,
        ),
        ("POST", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (
            "POST",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            b"ok",
            True,
        ),
        (
            "POST",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"ok",
            False,
        ),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["one read", "byte by byte"])
async def test_every_framing_is_understood(
    transport: UpstreamTransport,
    method: str,
    answer: bytes,
    body: bytes,
    kept: bool,
    at_once: bool,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in [answer] if at_once else [bytes([byte]) for byte in answer]:
            await peer.send(piece)
            await asyncio.sleep(0)
        if kept:
            await peer.request()
            await peer.send(OK)
            await peer.gone()

    async with upstream(script) as server:
        request = httpx.Request(method, server.url, extensions={"timeout": PATIENT})
        assert await fetch(transport, request) == body
        assert transport.open_connections == int(kept)
        if kept:
            assert await fetch(transport, ask(server)) == b"ok"
            assert server.accepted == 1


async def test_status_headers_and_version_are_the_servers(transport: UpstreamTransport) -> None:
    answer = b"HTTP/1.0 418 Teapot\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n"
    async with upstream(once(answer)) as server:
        response = await transport.handle_async_request(ask(server))
        assert (response.status_code, response.http_version) == (418, "HTTP/1.0")
        assert response.headers.raw == [(b"Set-Cookie", b"a"), (b"set-cookie", b"b")]


@pytest.mark.parametrize(
    ("sent", "before"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nConte", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", b"ok"),
        (CHUNKED + b"5\r\nok", b"ok"),
        (CHUNKED + b"2\r\nok\r\n", b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", b"ok"),
    ],
)
async def test_a_cut_answer_never_looks_complete(
    transport: UpstreamTransport, sent: bytes, before: bytes
) -> None:
    received = bytearray()
    async with upstream(once(sent)) as server:
        request = ask(server)
        with pytest.raises(httpx.RemoteProtocolError) as cut:
            await collect(received, await transport.handle_async_request(request))
        assert cut.value.request is request
        assert not isinstance(cut.value, StaleConnectionError)
    assert (bytes(received), transport.open_connections) == (before, 0)


@pytest.mark.parametrize("head", [CHUNKED + b"2\r\nok\r\n", b"HTTP/1.1 200 OK\r\n\r\nok"])
async def test_a_reset_connection_is_a_read_error(
    transport: UpstreamTransport, head: bytes
) -> None:
    reset = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await reset.wait()
        # With bytes left unread, closing sends RST instead of FIN.
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0
        peer.writer.transport.abort()

    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server))
        assert isinstance(response.stream, Answer)
        assert await response.stream.read() == b"ok"
        reset.set()
        with pytest.raises(httpx.ReadError):
            await response.stream.read()


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 000 No\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        CHUNKED + b"2\r\nok\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12_000 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000,
        CHUNKED + b"2\r\nok\r\n0\r\nX: " + b"x" * 200_000,
    ],
)
async def test_a_malformed_or_endless_answer_is_a_protocol_error(
    transport: UpstreamTransport, sent: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.gone()

    async with upstream(script) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, ask(server))
        assert transport.open_connections == 0


@pytest.mark.parametrize("later", [False, True], ids=["same read", "later"])
async def test_bytes_nobody_asked_for_never_answer_the_next_question(
    transport: UpstreamTransport, later: bool
) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK if later else OK + forged)
        if later:
            await asyncio.sleep(0.01)
            await peer.send(forged)
        await peer.gone()

    async with upstream(script) as server:
        assert await fetch(transport, ask(server)) == b"ok"
        await eventually(lambda: transport.open_connections == 0)
        assert await fetch(transport, ask(server)) == b"ok"
        assert server.accepted == 2


async def test_pieces_arrive_as_they_are_sent_and_joined_when_the_reader_is_late(
    transport: UpstreamTransport,
) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await go.wait()
        await peer.send(b"1\r\nb\r\n1\r\nc\r\n")
        await asyncio.sleep(0.01)
        await peer.send(b"1\r\nd\r\n0\r\n\r\n")
        await peer.gone()

    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server))
        pieces = aiter(response.aiter_raw())
        assert await anext(pieces) == b"a"
        go.set()
        await eventually(lambda: transport.open_connections == 1 and _idle(transport) == 1)
        assert [piece async for piece in pieces] == [b"bcd"]


def _idle(transport: UpstreamTransport) -> int:
    return sum(len(pool._idle) for pool in transport._pools.values())


async def test_an_unread_body_stops_the_sender_and_then_arrives_whole(
    transport: UpstreamTransport,
) -> None:
    total = 24 * MEBIBYTE
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(b"x" * 65536)
            sent += 65536
        await peer.request()
        await peer.send(OK)
        await peer.gone()

    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server))
        stream = response.stream
        assert isinstance(stream, Answer)
        before = -1
        while sent != before:  # until the sender stands still
            before = sent
            await asyncio.sleep(0.05)
        assert sent < total
        assert stream.size <= 3 * PAUSE_ABOVE_BYTES
        assert len(await stream.read_all(total)) == total
        assert await fetch(transport, ask(server)) == b"ok"
        assert server.accepted == 1


async def test_a_body_beyond_the_callers_limit_is_refused_and_its_connection_closed(
    transport: UpstreamTransport,
) -> None:
    async with upstream(always(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789")) as server:
        request = ask(server)
        response = await transport.handle_async_request(request)
        with pytest.raises(ResponseTooLarge) as refused:
            await read_all(response, 8)
        assert refused.value.request is request
        response = await transport.handle_async_request(ask(server))
        assert await read_all(response, 9) == b"123456789"


# The pool.


async def test_a_kept_connection_carries_many_calls(transport: UpstreamTransport) -> None:
    async with upstream(always(OK)) as server:
        for _ in range(20):
            assert await fetch(transport, ask(server)) == b"ok"
        assert (server.accepted, transport.open_connections) == (1, 1)


async def test_the_youngest_idle_connection_is_used_first(transport: UpstreamTransport) -> None:
    served: list[tuple[bytes, int]] = []

    async def script(peer: Peer) -> None:
        number = server.accepted
        while True:
            _, body = await peer.request()
            served.append((body, number))
            await asyncio.sleep(float(body))
            await peer.send(OK)

    async with upstream(script) as server:
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch(transport, ask(server, b"0.0")))
            group.create_task(fetch(transport, ask(server, b"0.1")))
        slow = dict(served)[b"0.1"]
        served.clear()
        for _ in range(3):
            await fetch(transport, ask(server, b"0"))
        assert served == [(b"0", slow)] * 3


async def test_a_connection_seen_closed_while_idle_is_not_used_again(
    transport: UpstreamTransport,
) -> None:
    async with upstream(once(OK)) as server:
        for _ in range(3):
            assert await fetch(transport, ask(server)) == b"ok"
            await eventually(lambda: transport.open_connections == 0)
        assert server.accepted == 3


async def test_a_reused_connection_closed_before_the_answer_is_stale_and_nothing_is_resent(
    transport: UpstreamTransport,
) -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.request()
        requests += 1
        await peer.send(OK)
        await peer.request()
        requests += 1

    async with upstream(script) as server:
        await fetch(transport, ask(server))
        request = ask(server)
        with pytest.raises(StaleConnectionError) as stale:
            await fetch(transport, request)
        assert stale.value.request is request
        await asyncio.sleep(0.02)
        assert (requests, server.accepted, transport.open_connections) == (2, 1, 0)


async def test_an_idle_connection_is_closed_after_its_time(make: Make) -> None:
    async with (
        make(idle_seconds=0.05) as transport,
        upstream(always(OK)) as server,
    ):
        await fetch(transport, ask(server))
        assert transport.open_connections == 1
        await eventually(lambda: transport.open_connections == 0 and server.open == 0)


async def test_a_request_that_says_close_is_obeyed(transport: UpstreamTransport) -> None:
    async with upstream(always(OK)) as server:
        request = build_request(server.url, [(b"Connection", b"close")], b"", timeouts=PATIENT)
        assert await fetch(transport, request) == b"ok"
        assert transport.open_connections == 0


async def test_the_bound_on_connections_holds_and_waiters_are_served_in_turn(make: Make) -> None:
    order: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            order.append(int(body))
            await asyncio.sleep(0.01)
            await peer.send(OK)

    async with make(connections_per_origin=2) as transport:
        async with upstream(script) as server, asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(fetch(transport, ask(server, b"%d" % number)))
                await asyncio.sleep(0.001)
        assert server.most_open == 2
        assert sorted(order) == list(range(10))
        assert order[2:] == sorted(order[2:])


async def test_without_a_free_connection_in_time_it_is_a_pool_timeout(make: Make) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with (
        make(connections_per_origin=1) as transport,
        upstream(script) as server,
    ):
        busy = asyncio.create_task(fetch(transport, ask(server)))
        await eventually(lambda: server.accepted == 1)
        request = ask(server, pool=0.05)
        with pytest.raises(httpx.PoolTimeout) as timeout:
            await fetch(transport, request)
        assert timeout.value.request is request
        busy.cancel()
        await asyncio.wait([busy])
        assert transport.open_connections == 0


async def test_a_closed_connection_makes_room_for_a_waiter(make: Make) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.02)
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    async with make(connections_per_origin=1) as transport:
        async with upstream(script) as server, asyncio.TaskGroup() as group:
            calls = [group.create_task(fetch(transport, ask(server))) for _ in range(4)]
        assert [call.result() for call in calls] == [b"ok"] * 4
        assert (server.accepted, server.most_open) == (4, 1)


async def test_a_waiter_cancelled_as_it_is_served_passes_its_connection_on(make: Make) -> None:
    async with (
        make(connections_per_origin=1) as transport,
        upstream(always(OK)) as server,
    ):
        await fetch(transport, ask(server))
        (pool,) = transport._pools.values()
        first = asyncio.create_task(fetch(transport, ask(server)))
        await asyncio.sleep(0)
        second = asyncio.create_task(fetch(transport, ask(server)))
        third = asyncio.create_task(fetch(transport, ask(server)))
        await asyncio.sleep(0)
        checkin = pool.checkin

        def cancel_the_next(connection: object) -> None:
            pool.checkin = checkin  # type: ignore[method-assign]
            checkin(connection)  # type: ignore[arg-type]
            second.cancel()

        pool.checkin = cancel_the_next  # type: ignore[method-assign]
        async with asyncio.timeout(1):
            assert await first == b"ok"
            assert await third == b"ok"
        assert second.cancelled()
        assert (server.accepted, transport.open_connections) == (1, 1)


async def test_a_caller_cancelled_after_its_answer_does_not_disturb_the_next_one(
    make: Make,
) -> None:
    async with (
        make(connections_per_origin=1) as transport,
        upstream(always(OK)) as server,
    ):
        await fetch(transport, ask(server))
        (pool,) = transport._pools.values()
        first = asyncio.create_task(fetch(transport, ask(server)))
        await asyncio.sleep(0)
        second = asyncio.create_task(fetch(transport, ask(server)))
        await asyncio.sleep(0)
        checkin = pool.checkin

        def cancel_the_one_before(connection: object) -> None:
            pool.checkin = checkin  # type: ignore[method-assign]
            checkin(connection)  # type: ignore[arg-type]
            first.cancel()

        pool.checkin = cancel_the_one_before  # type: ignore[method-assign]
        async with asyncio.timeout(1):
            assert await second == b"ok"
        assert first.cancelled()
        assert (server.accepted, transport.open_connections) == (1, 1)


async def test_closing_the_transport_ends_calls_and_waiters_and_refuses_more(make: Make) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nok\r\n")
        await peer.gone()

    transport = make(connections_per_origin=1)
    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server))
        waiter = asyncio.create_task(fetch(transport, ask(server)))
        await asyncio.sleep(0.01)
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await read_all(response, 10)
        with pytest.raises(httpx.ConnectError):
            await waiter
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, ask(server))
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0)


# Deadlines.


async def test_no_answer_in_time_is_a_read_timeout(transport: UpstreamTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with upstream(script) as server:
        request = ask(server, read=0.1)
        started = time.monotonic()
        with pytest.raises(httpx.ReadTimeout) as timeout:
            await fetch(transport, request)
        assert 0.08 < time.monotonic() - started < 0.4
        assert timeout.value.request is request
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nConte", CHUNKED + b"5"])
async def test_a_stall_between_bytes_that_give_nothing_yet_is_a_read_timeout(
    transport: UpstreamTransport, sent: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in sent:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.001)
        await peer.gone()

    async with upstream(script) as server, asyncio.timeout(1):
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, ask(server, read=0.1))


async def test_a_stall_within_the_body_is_a_read_timeout(transport: UpstreamTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nok\r\n")
        await peer.gone()

    received = bytearray()
    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server, read=0.1))
        with pytest.raises(httpx.ReadTimeout):
            await collect(received, response)
    assert (bytes(received), transport.open_connections) == (b"ok", 0)


async def test_slow_bytes_are_not_a_stall(transport: UpstreamTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in (b"HTTP/1.1 2", b"00 OK\r\nContent-", b"Length: 2\r\n\r\n", b"o", b"k"):
            await asyncio.sleep(0.15)
            await peer.send(piece)
        await peer.gone()

    async with upstream(script) as server:
        assert await fetch(transport, ask(server, read=0.6)) == b"ok"


async def test_a_reader_that_takes_its_time_is_not_a_stall(transport: UpstreamTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nok\r\n")
        await asyncio.sleep(0.12)
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server, read=0.08))
        await asyncio.sleep(0.1)
        assert await read_all(response, 10) == b"ok"


async def test_a_shorter_deadline_replaces_a_longer_one(transport: UpstreamTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.gone()

    async with upstream(script) as server:
        await fetch(transport, ask(server, read=30))
        started = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, ask(server, read=0.05))
        assert time.monotonic() - started < 0.5


async def test_a_server_that_does_not_read_is_a_write_timeout(
    transport: UpstreamTransport,
) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.sleep(5)

    async with upstream(script) as server:
        with pytest.raises(httpx.WriteTimeout):
            await fetch(transport, ask(server, b"x" * (32 * MEBIBYTE), write=0.1))
        assert transport.open_connections == 0


async def test_a_server_that_does_not_read_stops_the_source_of_a_streamed_body(
    transport: UpstreamTransport,
) -> None:
    given = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 64 * MEBIBYTE:
            given += MEBIBYTE
            yield b"x" * MEBIBYTE

    async def script(peer: Peer) -> None:
        await asyncio.sleep(5)

    async with upstream(script) as server:
        request = streamed(server, parts())
        request.extensions["timeout"] = PATIENT | {"write": 0.1}
        with pytest.raises(httpx.WriteTimeout):
            await fetch(transport, request)
    assert given < 32 * MEBIBYTE  # what the kernel buffers, not the whole source


async def test_a_server_that_reads_slowly_is_not_a_write_timeout(
    transport: UpstreamTransport,
) -> None:
    size = 32 * MEBIBYTE  # far more than the kernel buffers: 0.6 s to read, thrice the deadline

    async def script(peer: Peer) -> None:
        left = size
        await peer.reader.readuntil(b"\r\n\r\n")
        while left:
            left -= len(await peer.reader.readexactly(min(left, MEBIBYTE)))
            await asyncio.sleep(0.02)
        await peer.send(OK)
        await peer.gone()

    async with upstream(script) as server:
        assert await fetch(transport, ask(server, b"x" * size, write=0.2)) == b"ok"


async def test_a_handshake_that_does_not_come_is_a_connect_timeout(
    transport: UpstreamTransport,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with upstream(script) as server:
        request = build_request(
            server.url.copy_with(scheme="https"), [], b"", timeouts=PATIENT | {"connect": 0.1}
        )
        with pytest.raises(httpx.ConnectTimeout) as timeout:
            await fetch(transport, request)
        assert timeout.value.request is request
        assert transport.open_connections == 0


async def test_a_refused_connection_is_a_connect_error(transport: UpstreamTransport) -> None:
    async with upstream(always(OK)) as server:
        pass
    request = ask(server)
    with pytest.raises(httpx.ConnectError) as refused:
        await fetch(transport, request)
    assert refused.value.request is request
    assert transport.open_connections == 0


# Cancelling.


async def test_closing_a_stream_early_closes_the_socket_at_once(
    transport: UpstreamTransport,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nok\r\n")
        await peer.gone()

    async with upstream(script) as server:
        response = await transport.handle_async_request(ask(server))
        stream = response.stream
        assert isinstance(stream, Answer)
        assert await stream.read() == b"ok"
        await stream.aclose()
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0, SOON_SECONDS)
        with pytest.raises(httpx.StreamClosed):
            await stream.read()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", CHUNKED, CHUNKED + b"2\r\nok\r\n"])
async def test_cancelling_a_call_closes_the_socket_at_once(
    transport: UpstreamTransport, sent: bytes
) -> None:
    reached = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        reached.set()
        await peer.gone()

    async with upstream(script) as server:
        call = asyncio.create_task(fetch(transport, ask(server)))
        await reached.wait()
        await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0, SOON_SECONDS)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancelling_while_writing_or_dialling_closes_the_socket_at_once(
    transport: UpstreamTransport, scheme: str
) -> None:
    """Over http the server does not read; over https it does not shake hands."""

    async def script(peer: Peer) -> None:
        await asyncio.sleep(0.05)
        await peer.gone()

    async with upstream(script) as server:
        url = server.url.copy_with(scheme=scheme)
        request = build_request(url, [], b"x" * (16 * MEBIBYTE), timeouts=PATIENT)
        call = asyncio.create_task(fetch(transport, request))
        await eventually(lambda: server.accepted == 1)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0, SOON_SECONDS + 0.05)


async def test_nothing_leaks_whatever_ends_the_calls(make: Make) -> None:
    chance = random.Random(7)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            answer = chance.choice(
                [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", CHUNKED + b"2\r\nok\r\n", b"junk\r\n", b""]
            )
            await asyncio.sleep(chance.random() * 0.004)
            await peer.send(answer)
            if answer == b"":
                return

    async def call(transport: UpstreamTransport, server: Upstream) -> None:
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(chance.random() * 0.02):
                await fetch(transport, ask(server, read=0.01))

    async with (
        make(connections_per_origin=8) as transport,
        upstream(script) as server,
    ):
        async with asyncio.TaskGroup() as group:
            for _ in range(400):
                group.create_task(call(transport, server))
                await asyncio.sleep(chance.random() * 0.001)
        assert transport.open_connections == _idle(transport) <= 8
        (pool,) = transport._pools.values()
        assert not pool._waiters
        await eventually(lambda: server.open == transport.open_connections)
        await transport.aclose()
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0)
    # The server may see a socket still in its backlog, but never hold more than the bound for long.
    assert server.accepted > 8


# httpx on top, TLS below.


async def test_an_ordinary_client_works_on_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def script(peer: Peer) -> None:
        while True:
            head, body = await peer.request()
            if b"/slow" in head:
                await peer.gone()
            await peer.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    async with (
        upstream(script) as server,
        httpx.AsyncClient(
            transport=make(), base_url=server.url.copy_with(path="/", query=None)
        ) as client,
    ):
        assert (await client.post("/x", json={"a": 1})).json() == {"a": 1}
        async with client.stream("POST", "/x", content=b"hello") as response:
            assert await read_all(response, 5) == b"hello"
        async with client.stream("POST", "/x", content=b"hello") as response:
            with pytest.raises(ResponseTooLarge):
                await read_all(response, 4)
        with pytest.raises(httpx.ReadTimeout) as timeout:
            await client.get("/slow", timeout=0.05)
        assert timeout.value.request.url.path == "/slow"


@pytest.fixture(scope="module")
def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made, key


@pytest.fixture
def server_tls(
    certificate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], tmp_path: Path
) -> ssl.SSLContext:
    made, key = certificate
    chain = tmp_path / "server.pem"
    chain.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def trusting(made: x509.Certificate) -> UpstreamTransport:
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    return UpstreamTransport(ssl_context=ssl.create_default_context(cadata=pem))


async def test_tls_names_its_server_speaks_http_1_and_shows_the_certificate(
    certificate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], server_tls: ssl.SSLContext
) -> None:
    asked_for: list[str | None] = []
    server_tls.sni_callback = lambda _object, name, _context: asked_for.append(name)
    async with trusting(certificate[0]) as transport, upstream(always(OK), server_tls) as server:
        assert await fetch(transport, ask(server)) == b"ok"
        response = await transport.handle_async_request(ask(server))
        assert await read_all(response, 10) == b"ok"
        tls = response.extensions["network_stream"].get_extra_info("ssl_object")
        der = certificate[0].public_bytes(serialization.Encoding.DER)
        assert tls.getpeercert(binary_form=True) == der
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert (asked_for, server.accepted) == (["localhost"], 1)


async def test_tls_large_bodies_pass_both_ways(
    certificate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], server_tls: ssl.SSLContext
) -> None:
    content = random.Random(2).randbytes(3 * MEBIBYTE)

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with trusting(certificate[0]) as transport, upstream(script, server_tls) as server:
        for _ in range(2):
            response = await transport.handle_async_request(ask(server, content))
            await asyncio.sleep(0.02)
            assert await read_all(response, len(content)) == content
        assert server.accepted == 1


@pytest.mark.parametrize("orderly", [True, False])
async def test_over_tls_only_an_orderly_close_ends_a_body_without_length(
    certificate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    server_tls: ssl.SSLContext,
    orderly: bool,
) -> None:
    if not orderly and not isinstance(asyncio.get_running_loop(), uvloop.Loop):
        pytest.skip("asyncio's own loop hides the difference, as the docstring of transport says")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nok")
        await asyncio.sleep(0.01)
        if not orderly:
            peer.writer.transport.abort()

    received = bytearray()
    async with trusting(certificate[0]) as transport, upstream(script, server_tls) as server:
        response = await transport.handle_async_request(ask(server))
        with contextlib.nullcontext() if orderly else pytest.raises(httpx.RemoteProtocolError):
            await collect(received, response)
    assert bytes(received) == b"ok"


async def test_cancelling_over_tls_closes_the_socket_at_once(
    certificate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey], server_tls: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nok\r\n")
        await peer.gone()

    async with trusting(certificate[0]) as transport, upstream(script, server_tls) as server:
        response = await transport.handle_async_request(ask(server))
        assert isinstance(response.stream, Answer)
        await response.stream.read()
        await response.aclose()
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0, SOON_SECONDS)


async def test_an_untrusted_certificate_and_a_wrong_name_are_connect_errors(
    transport: UpstreamTransport,
    certificate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    server_tls: ssl.SSLContext,
) -> None:
    async with upstream(always(OK), server_tls) as server:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await fetch(transport, ask(server))
        async with trusting(certificate[0]) as knowing:
            url = server.url.copy_with(host="127.0.0.1")
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await fetch(knowing, build_request(url, [], b"", timeouts=PATIENT))
            assert knowing.open_connections == 0
