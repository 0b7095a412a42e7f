"""The answers of our cycle beside uvicorn's own: the same bytes, and the same refusals."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.http_cycle import Cycle

DATE = (b"date", b"Sat, 21 Nov 2026 07:00:00 GMT")
PLAIN = [(b"content-type", b"text/plain")]
LENGTH = [*PLAIN, (b"content-length", b"4")]


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Flow:
    write_paused = False


def start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def written(
    kind: type[RequestResponseCycle], method: str, keep_alive: bool, messages: list[dict[str, Any]]
) -> tuple[bytes, bool, bool, str | None]:
    """Everything sent, closed, complete, and the error."""
    wire, ended = Wire(), []
    cycle = kind(
        scope={"method": method},  # type: ignore[typeddict-item]
        transport=wire,  # type: ignore[arg-type]
        flow=Flow(),  # type: ignore[arg-type]
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[DATE],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: ended.append(True),
    )
    error = None
    try:
        for message in messages:
            await cycle.send(message)  # type: ignore[arg-type]
    except RuntimeError as raised:
        error = str(raised).partition(",")[0].rstrip(".")
    assert cycle.response_complete == bool(ended)
    return wire.sent, wire.closed, cycle.response_complete, error


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(
    "messages",
    [
        [start(200, LENGTH), body(b"four")],
        [start(200, LENGTH), body(b"fo", more=True), body(b"ur")],
        [start(200, LENGTH), body(b"too long")],
        [start(200, LENGTH), body(b"x")],
        [start(200, PLAIN), body(b"a", more=True), body(b"", more=True), body(b"bc")],
        [start(200, PLAIN), body(b"a", more=True), body(b"")],
        [start(200, [*PLAIN, (b"transfer-encoding", b"Chunked")]), body(b"a")],
        [start(200, [*LENGTH, (b"connection", b"Close")]), body(b"four")],
        [start(200, [*LENGTH, (b"connection", b"x, close")]), body(b"four")],
        [start(204, []), body(b"")],
        [start(304, PLAIN), body(b"")],
        [start(200, [*LENGTH, (b"x", b"a\tb \xfc")]), body(b"four")],
        [body(b"first")],
        [start(200, LENGTH), start(200, LENGTH)],
    ],
)
async def test_an_answer_is_the_one_uvicorn_would_send(
    method: str, keep_alive: bool, messages: list[dict[str, Any]]
) -> None:
    ours = await written(Cycle, method, keep_alive, messages)
    assert ours == await written(RequestResponseCycle, method, keep_alive, messages)


@pytest.mark.parametrize(
    "header",
    [
        (b"", b"no name"),
        (b"a b", b"1"),
        (b"a:", b"1"),
        (b"a\r\nb", b"1"),
        (b"Content-Length", b"1"),
        (b"a", b"1\r\nb: 2"),
        (b"a", b"1\n"),
        (b"a", b"1\r"),
        (b"a", b"1\x00"),
        (b"a", b"1\x1b[2J"),
        (b"a", b"1\x7f"),
        (b"a", b"\r\n"),
        (b"a: 1\r\nb", b"2"),
    ],
)
async def test_a_header_that_could_forge_another_is_refused_and_nothing_is_sent(
    header: tuple[bytes, bytes],
) -> None:
    sent, _, complete, error = await written(Cycle, "POST", True, [start(200, [*PLAIN, header])])
    assert (sent, complete) == (b"", False)
    assert error is not None
    assert error.startswith("Invalid HTTP header")


async def test_nothing_is_sent_after_the_end() -> None:
    messages = [start(200, LENGTH), body(b"four"), body(b"more")]
    sent, _, complete, error = await written(Cycle, "POST", True, messages)
    assert sent.endswith(b"four")
    assert complete
    assert error is not None
