"""The upstream transport between its neighbours: httpx on top, TLS below."""

import asyncio
import contextlib
import datetime
import ipaddress
import random
import ssl
from pathlib import Path

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.upstream_transport.upstream import (
    CHUNKED,
    MEBIBYTE,
    OK,
    PATIENT,
    SOON_SECONDS,
    Make,
    Peer,
    always,
    ask,
    collect,
    eventually,
    fetch,
    upstream,
)
from workers.providers.http.request import build_request
from workers.providers.http.response import Answer, ResponseTooLarge, read_all
from workers.providers.transport import UpstreamTransport


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
