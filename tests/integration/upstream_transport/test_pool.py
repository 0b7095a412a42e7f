"""Connections to an upstream: kept, reused, bounded, passed on and closed."""

import asyncio

import httpx
import pytest

from tests.integration.upstream_transport.upstream import (
    CHUNKED,
    OK,
    PATIENT,
    Make,
    Peer,
    always,
    ask,
    eventually,
    fetch,
    once,
    upstream,
)
from workers.providers.http.connection import StaleConnectionError
from workers.providers.http.request import build_request
from workers.providers.http.response import read_all
from workers.providers.transport import UpstreamTransport


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
