"""The upstream transport's requests as a server gets them, and those it refuses to send."""

import asyncio
import random
from collections.abc import AsyncIterator

import httpx
import pytest
from typing_extensions import override

from tests.integration.upstream_transport.upstream import (
    MEBIBYTE,
    OK,
    PATIENT,
    Peer,
    always,
    ask,
    fetch,
    streamed,
    upstream,
)
from workers.providers.http.request import build_request
from workers.providers.http.response import read_all
from workers.providers.transport import UpstreamTransport


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
