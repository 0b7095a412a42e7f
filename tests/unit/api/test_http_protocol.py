"""What a hostile or broken client can do to a connection: nothing but lose it."""

import asyncio
from typing import Any

import pytest
import uvicorn
from typing_extensions import override
from uvicorn.server import ServerState

from api import http_protocol
from api.http_protocol import CLIENT_LEFT, MAX_HEAD_BYTES, BoundedProtocol

POST = b"POST /x HTTP/1.1\r\nhost: a\r\n"


class Wire(asyncio.Transport):
    """A client's end: keeps what it is sent, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.got = b""
        self.closed = False
        self.paused = 0

    @override
    def write(self, data: Any) -> None:
        self.got += bytes(data)

    @override
    def close(self) -> None:
        self.closed = True

    @override
    def abort(self) -> None:
        self.closed = True

    @override
    def is_closing(self) -> bool:
        return self.closed

    @override
    def pause_reading(self) -> None:
        self.paused += 1

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    def resume_reading(self) -> None:
        return

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Application:
    """Reads each body, then answers when it may."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, dict[bytes, bytes]]] = []
        self.scopes: list[Any] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            await self.may_read.wait()
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
        self.seen.append((scope["method"], scope["path"], body, dict(scope["headers"])))
        await self.may_answer.wait()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        )
        await send({"type": "http.response.body", "body": b"ok"})


class Connection:
    def __init__(self) -> None:
        self.app, self.wire = Application(), Wire()
        config = uvicorn.Config(
            self.app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None,
            log_level="critical",
        )  # fmt: skip
        config.load()
        self.protocol = BoundedProtocol(config, ServerState(), {})
        self.protocol.connection_made(self.wire)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)
            for _ in range(10):
                await asyncio.sleep(0)

    @property
    def statuses(self) -> list[bytes]:
        return [answer[:3] for answer in self.wire.got.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
async def connection() -> Connection:
    return Connection()


async def test_requests_on_a_kept_connection_are_answered_one_after_another(
    connection: Connection,
) -> None:
    await connection.say(
        POST + b"content-length: 3\r\n\r\nabc", POST + b"content-length: 0\r\n\r\n"
    )
    assert connection.statuses == [b"200", b"200"]
    assert [body for _, _, body, _ in connection.app.seen] == [b"abc", b""]
    assert not connection.wire.closed


@pytest.mark.parametrize("framing", [b"content-length: 26\r\n", b"transfer-encoding: chunked\r\n"])
async def test_a_body_behind_an_upgrade_is_not_the_next_request(
    connection: Connection, framing: bytes
) -> None:
    smuggled = b"GET /secret HTTP/1.1\r\na: b\r\n\r\n"
    head = POST + b"connection: upgrade\r\nupgrade: h2c\r\n" + framing + b"\r\n"
    await connection.say(head, smuggled)
    assert connection.statuses == [b"400"]
    assert connection.app.seen == []
    assert connection.wire.closed


async def test_a_request_that_does_not_wait_for_the_answer_before_it_is_not_served(
    connection: Connection,
) -> None:
    connection.app.may_answer.clear()
    await connection.say(
        POST + b"content-length: 0\r\n\r\n", (POST + b"content-length: 0\r\n\r\n") * 5
    )
    assert len(connection.app.scopes) == 1
    connection.app.may_answer.set()
    await connection.say(b"more and more", b"\r\n\r\n" * 1000)
    assert connection.statuses == [b"200"]
    assert b"connection: close" in connection.wire.got
    assert connection.wire.closed


async def test_requests_sent_in_one_piece_leave_nothing_in_memory(connection: Connection) -> None:
    await connection.say(b"GET / HTTP/1.1\r\n\r\n" * 10_000)
    assert len(connection.app.scopes) == 1
    assert not connection.protocol.pipeline
    assert connection.statuses == [b"200"]


async def test_a_client_that_leaves_is_noticed_whatever_it_sent_before(
    connection: Connection,
) -> None:
    connection.app.may_answer.clear()
    await connection.say(POST + b"content-length: 0\r\n\r\n", POST + b"\r\n")
    connection.protocol.connection_lost(None)
    (scope,) = connection.app.scopes
    assert scope[CLIENT_LEFT]


async def test_trailers_are_no_headers(connection: Connection) -> None:
    body = b"3\r\nabc\r\n0\r\nauthorization: Bearer x\r\n\r\n"
    await connection.say(POST + b"transfer-encoding: chunked\r\n\r\n" + body)
    ((_, _, got, headers),) = connection.app.seen
    assert got == b"abc"
    assert b"authorization" not in headers


async def test_nonsense_behind_a_request_does_not_answer_it(connection: Connection) -> None:
    connection.app.may_answer.clear()
    await connection.say(POST + b"content-length: 0\r\n\r\n", b"\x00\x01 nonsense\r\n\r\n")
    assert connection.wire.got == b""
    connection.app.may_answer.set()
    await connection.say(b"")
    assert connection.statuses == [b"200"]
    assert connection.wire.closed


async def test_a_body_that_breaks_is_a_400(connection: Connection) -> None:
    await connection.say(POST + b"transfer-encoding: chunked\r\n\r\n", b"not a size\r\n")
    assert connection.statuses == [b"400"]
    assert connection.wire.closed


@pytest.mark.parametrize("line", [b"a:\r\n", b"a: b\r\n", b"x-long: " + b"y" * 4096 + b"\r\n"])
async def test_headers_without_end_are_refused(connection: Connection, line: bytes) -> None:
    await connection.say(POST + line * (MAX_HEAD_BYTES // 16))
    assert connection.statuses == [b"400"]
    assert b"headers are too large" in connection.wire.got
    assert connection.wire.closed


# ---- requests that are never whole


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALL_SECONDS", 0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("body", [b"", b"\r\n"], ids=["in its head", "in its body"])
async def test_a_request_that_trickles_loses_its_connection(
    connection: Connection, body: bytes
) -> None:
    await connection.say(POST + b"content-length: 100\r\n" + body)
    for _ in range(12):
        await connection.say(b"x")
        await asyncio.sleep(0.01)
    assert connection.wire.closed


@pytest.mark.usefixtures("hasty")
async def test_a_body_that_moves_may_take_as_long_as_it_needs(connection: Connection) -> None:
    piece = b"x" * 32_768
    await connection.say(POST + b"content-length: %d\r\n\r\n" % (20 * len(piece)))
    for _ in range(20):
        await connection.say(piece)
        await asyncio.sleep(0.01)
    assert connection.statuses == [b"200"]
    assert not connection.wire.closed


@pytest.mark.usefixtures("hasty")
async def test_a_connection_that_only_waits_is_left_alone(connection: Connection) -> None:
    await connection.say(POST, b"content-length: 2\r\n\r\n", b"ab")
    await asyncio.sleep(0.15)
    assert connection.statuses == [b"200"]
    assert not connection.wire.closed


@pytest.mark.usefixtures("hasty")
async def test_who_is_not_read_is_not_taken_for_slow(connection: Connection) -> None:
    connection.app.may_read.clear()
    body = b"x" * 200_000
    await connection.say(POST + b"content-length: %d\r\n\r\n" % (len(body) + 1) + body)
    assert connection.wire.paused
    await asyncio.sleep(0.15)
    assert not connection.wire.closed
    connection.app.may_read.set()
    await connection.say(b"x")
    assert connection.statuses == [b"200"]
