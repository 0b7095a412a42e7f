"""What may take how long at an upstream, and what is told when it takes longer."""

import asyncio
import time
from collections.abc import AsyncIterator

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
    streamed,
    upstream,
)
from workers.providers.http.request import build_request
from workers.providers.http.response import read_all
from workers.providers.transport import UpstreamTransport


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
