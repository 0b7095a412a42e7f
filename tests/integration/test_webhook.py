"""Webhooks over real sockets: signed, tried again within bounds, and never sent where they may not go."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from shared.clock import StillClock
from workers import webhook as webhooks
from workers.webhook import Webhook, decode_secret, is_public

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
BODY = b'{"type": "budget.reset"}'


class Receiver:
    """Answers each request with the next status; the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        exact = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append(({name.lower(): text for name, text in exact.items()}, body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        to = f"location: http://127.0.0.1:{self.port}/elsewhere\r\n" if 300 <= status < 400 else ""
        writer.write(f"HTTP/1.1 {status} x\r\n{to}content-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(*statuses)
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


@asynccontextmanager
async def sending(
    port: int, *, host: str = "localhost", allow_private: bool = True
) -> AsyncIterator[Webhook]:
    url = f"http://{host}:{port}/hook"
    webhook = Webhook(url, SECRET, allow_private=allow_private, clock=StillClock(1_700_000_000.9))
    try:
        yield webhook
    finally:
        await webhook.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "FIRST_BACKOFF_SECONDS", 0.01)


async def test_a_message_is_signed_as_the_specification_says():
    async with receiving(204) as receiver, sending(receiver.port, host="127.0.0.1") as webhook:
        assert await webhook.send("evt_1", BODY) == "delivered"
    [(headers, body)] = receiver.requests
    signed = hmac.new(b"s" * 32, b"evt_1.1700000000." + BODY, hashlib.sha256).digest()
    assert body == BODY
    assert headers["webhook-id"] == "evt_1"
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_a_failure_is_tried_again_under_the_same_id():
    async with (
        receiving(500, 503, 200) as receiver,
        sending(receiver.port, host="127.0.0.1") as webhook,
    ):
        assert await webhook.send("evt_1", BODY) == "delivered"
    assert [headers["webhook-id"] for headers, _ in receiver.requests] == ["evt_1"] * 3


async def test_one_that_always_fails_is_given_up_and_the_next_is_tried_once_until_it_works():
    async with (
        receiving(*[500] * 6, 200) as receiver,
        sending(receiver.port, host="127.0.0.1") as webhook,
    ):
        with capture_logs() as logs:
            assert await webhook.send("evt_1", BODY) == "failed"
        assert len(receiver.requests) == webhooks.MOST_ATTEMPTS
        assert [line["action"] for line in logs] == ["webhook_failed"]
        assert str(receiver.port) not in str(logs), "an address may hold a secret"
        assert await webhook.send("evt_2", BODY) == "failed"
        assert len(receiver.requests) == webhooks.MOST_ATTEMPTS + 1
        assert await webhook.send("evt_3", BODY) == "delivered"


async def test_a_redirect_is_a_failure_and_is_not_followed(monkeypatch):
    monkeypatch.setattr(webhooks, "MOST_ATTEMPTS", 1)
    async with receiving(307) as receiver, sending(receiver.port, host="127.0.0.1") as webhook:
        assert await webhook.send("evt_1", BODY) == "failed"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_private_address_is_refused_by_number_and_by_name(host):
    async with (
        receiving(200) as receiver,
        sending(receiver.port, host=host, allow_private=False) as webhook,
    ):
        assert await webhook.send("evt_1", BODY) == "refused"
    assert receiver.requests == []


async def test_one_that_never_answers_is_given_up_at_the_deadline(monkeypatch):
    monkeypatch.setattr(webhooks, "DEADLINE_SECONDS", 0.2)

    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server, sending(server.sockets[0].getsockname()[1], host="127.0.0.1") as webhook:
        async with asyncio.timeout(5):
            assert await webhook.send("evt_1", BODY) == "failed"
            await left.wait()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.0.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True), ("2002:a00:1::", False),
        ("224.0.0.1", False), ("0.0.0.0", False),
    ],
)  # fmt: skip
def test_an_address_is_public_or_not_however_it_is_written(address, expected):
    assert is_public(address) is expected


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", "whsec_" + "QUFB"])
def test_a_secret_that_is_none_is_refused(secret):
    with pytest.raises(ValueError, match="GATEWAY_WEBHOOK_SECRET"):
        decode_secret(secret)


@pytest.mark.parametrize("url", ["ftp://x.example/", "x.example", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="GATEWAY_WEBHOOK_URL"):
        Webhook(url, SECRET, allow_private=False, clock=StillClock())
