"""Every way in which an upstream's answer comes, ends and breaks."""

import asyncio

import httpx
import pytest

from tests.integration.upstream_transport.upstream import (
    CHUNKED,
    MEBIBYTE,
    OK,
    PATIENT,
    Peer,
    always,
    ask,
    collect,
    eventually,
    fetch,
    idle,
    once,
    upstream,
)
from workers.providers.http.connection import PAUSE_ABOVE_BYTES, StaleConnectionError
from workers.providers.http.response import Answer, ResponseTooLarge, read_all
from workers.providers.transport import UpstreamTransport


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
        await eventually(lambda: transport.open_connections == 1 and idle(transport) == 1)
        assert [piece async for piece in pieces] == [b"bcd"]


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
