"""Who leaves a call upstream closes its socket at once, and nothing leaks."""

import asyncio
import contextlib
import random

import httpx
import pytest

from tests.integration.upstream_transport.upstream import (
    CHUNKED,
    MEBIBYTE,
    OK,
    PATIENT,
    SOON_SECONDS,
    Make,
    Peer,
    Upstream,
    ask,
    eventually,
    fetch,
    idle,
    upstream,
)
from workers.providers.http.request import build_request
from workers.providers.http.response import Answer
from workers.providers.transport import UpstreamTransport


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
        assert transport.open_connections == idle(transport) <= 8
        (pool,) = transport._pools.values()
        assert not pool._waiters
        await eventually(lambda: server.open == transport.open_connections)
        await transport.aclose()
        assert transport.open_connections == 0
        await eventually(lambda: server.open == 0)
    # The server may see a socket still in its backlog, but never hold more than the bound for long.
    assert server.accepted > 8
