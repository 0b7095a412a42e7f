"""Connections bound to attested keys, over real TLS, on both event loops."""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.integration.certificates import Key, a_certificate, a_server, der_of, spki
from workers.providers import transport as transports
from workers.providers.http.connection import PeerNotAttested, spki_of
from workers.providers.http.prepared import Endpoint, pinned
from workers.providers.transport import UpstreamTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUTS = {"connect": 2.0, "read": 2.0, "write": 2.0, "pool": 2.0}


@pytest.fixture(
    name="_asyncio_loop_factory",  # pytest-asyncio's: here every test runs on both loops
    autouse=True,
    params=[asyncio.new_event_loop, uvloop.new_event_loop],
    ids=["asyncio", "uvloop"],
)
def loop_factory(request: pytest.FixtureRequest) -> object:
    return request.param


class Node:
    """A machine that shows one key, and another once it was started anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.heard = b""
        self.accepted = 0
        self.port = 0
        self._starts = 0
        self.trusted = ""
        self._context: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    def start_anew(self) -> str:
        """Shows a new key from now on; its hash."""
        name = f"start {self._starts}"
        context, pem, pin = a_server(self._folder / f"{name}.pem", name)
        self._starts += 1
        self.trusted += pem
        self._context = self._context or context
        # The listener keeps its context; each handshake takes the newest.
        self._context.sni_callback = lambda shown, _name, _old: setattr(shown, "context", context)
        return pin

    def transport(self) -> UpstreamTransport:
        return UpstreamTransport(ssl_context=ssl.create_default_context(cadata=self.trusted))

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(f"https://localhost:{self.port}/v1")

    def request(self, *pins: str, body: bytes = b"a secret prompt") -> httpx.Request:
        endpoint = Endpoint(self.url, [])
        return endpoint.request(body, row_id="r1", timeouts=TIMEOUTS, pins=frozenset(pins))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            while True:
                self.heard += await reader.readuntil(b"a secret prompt")
                await self.gate.wait()
                writer.write(OK)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        async with asyncio.timeout(2):
            while self._tasks:  # noqa: ASYNC110 - the event is not ours to set
                await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Node"]:
        listener = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self._context)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            await self.stop()
            await listener.wait_closed()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def answered(transport: UpstreamTransport, request: httpx.Request) -> bytes:
    response = await transport.handle_async_request(request)
    return await response.aread()


async def test_an_attested_key_gets_the_request_and_keeps_its_connection(node: Node) -> None:
    pin = node.start_anew()
    async with node.listening(), node.transport() as transport:
        for _ in range(3):
            assert await answered(transport, node.request("0" * 64, pin)) == b"ok"
        response = await transport.handle_async_request(node.request("0" * 64, pin))
        assert response.extensions["network_stream"].spki == pin
        await response.aclose()
    assert node.accepted == 1


async def test_another_key_gets_no_byte_of_the_request(node: Node) -> None:
    node.start_anew()
    async with node.listening(), node.transport() as transport:
        with pytest.raises(PeerNotAttested):
            await transport.handle_async_request(node.request("0" * 64))
        assert transport.open_connections == 0
        await asyncio.sleep(0.05)
    assert node.heard == b""


async def test_a_pinned_request_never_takes_a_connection_that_was_not_checked(node: Node) -> None:
    pin = node.start_anew()
    async with node.listening(), node.transport() as transport:
        await answered(transport, node.request())
        with pytest.raises(PeerNotAttested):
            await transport.handle_async_request(node.request("0" * 64))
        await answered(transport, node.request(pin))
        await answered(transport, node.request())
        assert transport.open_connections == 2


async def test_a_new_key_is_refused_by_old_pins_and_taken_by_new_ones(node: Node) -> None:
    old = node.start_anew()
    async with node.listening():
        new = node.start_anew()
        async with node.transport() as transport:
            with pytest.raises(PeerNotAttested):
                await transport.handle_async_request(node.request(old))
            assert await answered(transport, node.request(new)) == b"ok"


async def test_pins_do_not_replace_the_authorities(node: Node) -> None:
    pin = node.start_anew()
    async with (
        node.listening(),
        UpstreamTransport(ssl_context=ssl.create_default_context()) as transport,
    ):
        with pytest.raises(httpx.ConnectError) as refused:
            await transport.handle_async_request(node.request(pin))
    assert not isinstance(refused.value, PeerNotAttested)
    assert node.heard == b""


async def test_without_tls_nothing_is_attested(node: Node) -> None:
    endpoint = Endpoint(httpx.URL("http://127.0.0.1:9/v1"), [])
    request = endpoint.request(b"", row_id="r1", timeouts=TIMEOUTS, pins=frozenset({"0" * 64}))
    async with UpstreamTransport() as transport:
        with pytest.raises(PeerNotAttested):
            await transport.handle_async_request(request)


@pytest.mark.parametrize("is_prepared", [True, False], ids=["prepared", "ordinary"])
async def test_any_request_can_be_bound_afterwards(node: Node, *, is_prepared: bool) -> None:
    pin = node.start_anew()

    def a_request() -> httpx.Request:
        if is_prepared:
            return node.request()
        return httpx.Request(
            "POST", node.url, content=b"a secret prompt", extensions={"timeout": TIMEOUTS}
        )

    async with node.listening(), node.transport() as transport:
        with pytest.raises(PeerNotAttested):
            await transport.handle_async_request(pinned(a_request(), frozenset({"0" * 64})))
        assert await answered(transport, pinned(a_request(), frozenset({pin}))) == b"ok"


async def test_pools_of_old_pins_go_and_their_busy_connections_end_first(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "MAX_PINNED_POOLS", 2)
    pin = node.start_anew()
    async with node.listening(), node.transport() as transport:
        node.gate.clear()
        busy = asyncio.ensure_future(answered(transport, node.request(pin)))
        async with asyncio.timeout(2):
            while not node.heard:  # noqa: ASYNC110 - a server's progress sets no event
                await asyncio.sleep(0.005)
        for other in "ab":
            with pytest.raises(PeerNotAttested):
                await transport.handle_async_request(node.request(other * 64))
        assert transport.open_connections == 1
        node.gate.set()
        assert await busy == b"ok"
        assert transport.open_connections == 0
        assert await answered(transport, node.request(pin)) == b"ok"
    assert node.heard.count(b"a secret prompt") == 2


async def test_a_closed_transport_closes_pinned_connections_too(node: Node) -> None:
    pin = node.start_anew()
    async with node.listening():
        transport = node.transport()
        await answered(transport, node.request(pin))
        assert transport.open_connections == 1
        await transport.aclose()
        assert transport.open_connections == 0
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(node.request("1" * 64))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "ed25519", "RSA"],
)
def test_a_key_is_known_by_its_info_and_not_by_its_certificate(key: Key) -> None:
    first, second = a_certificate(key), a_certificate(key, "other")
    assert spki_of(der_of(first)) == spki_of(der_of(second)) == spki(key)
    assert spki_of(der_of(first)) != hashlib.sha256(der_of(first)).hexdigest()


def test_what_is_no_certificate_has_no_key() -> None:
    assert spki_of(b"no certificate") == ""
