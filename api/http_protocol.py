"""uvicorn's HTTP protocol with bounds on what a client may do to it, and our own words for refusals.

Left alone, it parses a head of any size into memory, waits for ever for the rest of a request,
queues requests that are sent before the last one was answered, takes the trailers of a body for
headers, and reads the body of a request that asks for an upgrade as the next request.
"""

import asyncio
import re
import select
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.http_cycle import Cycle
from api.joined_writes import joined
from api.problems import JSON, encode_error
from shared.errors import ErrorBody, InvalidRequest
from shared.ids import dashed, new_id

_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_.-]+)+")
"""Nothing in it to decode or to take apart; not `//host`, which a URL parser reads otherwise."""
HEAD_TOO_LARGE = "The request's headers are too large."
MAX_HEAD_BYTES = 64 << 10
"""Names, values and the URL together; Node's and nginx's defaults are 16 and 32 KiB."""
HEADER_BYTES = 32
"""What a header costs beside its text: else ten thousand empty ones would pass."""
FIRST_BYTE_SECONDS = 30.0
"""A new connection that says nothing for so long is closed."""
STALL_SECONDS = 30.0
"""A head must be whole within it, and a body must go on …"""
STALL_BYTES = 16 << 10
"""… by so much. Slower than this no upload is worth its connection."""

LINGER_SECONDS = 1.0
"""How long a refused client may take to read that."""

IDLE, HEAD, BODY = range(3)

CLIENT_LEFT = "client_left"
"""Key of the scope: set once the connection was lost before the answer was complete."""
ON_CLIENT_LEFT = "on_client_left"
"""Key of the scope: what to call at that moment. A task that waits for `http.disconnect` would say
the same, at the price of a task for every request."""

ABORT = "abort"
"""Key of the scope: closes the connection at once, also while a client that reads nothing keeps an
answer waiting."""

IS_GONE = "is_gone"
"""Key of the scope: asks whether the client has closed its end. While we do not read, because what
we feed is behind, nothing else would tell."""

_CLOSED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Refused(Exception):
    """The parser wraps it; the client sees a 400 with this message."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    _stage = IDLE
    _messages = 0
    _moved = 0
    _refusal: str | None = None
    _is_broken = False
    _stall_timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(joined(transport))
        # uvicorn cancels this timer with the first byte, like that of a kept-alive connection.
        self.timeout_keep_alive_task = self.loop.call_later(
            FIRST_BYTE_SECONDS, self.timeout_keep_alive_handler
        )

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        # No cycle: the connection never carried a request (uvicorn's types leave that out).
        cycle: RequestResponseCycle | None = self.cycle
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete:
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
            scope[CLIENT_LEFT] = True
            on_client_left: Callable[[], None] | None = scope.get(ON_CLIENT_LEFT)
            if on_client_left is not None:
                on_client_left()

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return  # the running answer ends the connection; nothing is read any more
        super().data_received(data)
        if self._stage:
            self._moved += len(data)
            if self._stall_timer is None:
                self._watch()

    def _watch(self) -> None:
        self._moved = 0
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._on_watch, self._messages)

    def _on_watch(self, message: int) -> None:
        """Looks at a request that was not whole: it may have moved, or be another by now."""
        self._stall_timer = None
        if self._stage == IDLE or self.transport.is_closing():
            return
        # One that we have stopped reading, because what it feeds is behind, is not the slow one.
        is_slow = self._stage == HEAD or (self._moved < STALL_BYTES and not self.flow.read_paused)
        if message == self._messages and is_slow:
            self.transport.abort()
        else:
            self._watch()

    @override
    def on_message_begin(self) -> None:
        if self._is_running():
            # It would wait in memory, and hide from the running one that the client has left.
            self._refuse("Requests must wait for the answer to the one before.")
        self._head_bytes = 0
        self._stage = HEAD
        self._messages += 1
        super().on_message_begin()

    @override
    def on_message_complete(self) -> None:
        self._stage = IDLE
        super().on_message_complete()

    @override
    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        # uvicorn's own words and `_grow`'s, without further calls for every header.
        self._head_bytes += len(name) + len(value) + HEADER_BYTES
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HEAD_TOO_LARGE)
        if self._stage == BODY:
            return  # a trailer: whoever vets headers on the way here has not seen it
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    @override
    def on_headers_complete(self) -> None:
        """As uvicorn's, for the server as it is configured: no upgrades, no limit of concurrency."""
        parser, scope = self.parser, self.scope
        if parser.should_upgrade():
            # The parser would not read its body: that would be the next request.
            self._refuse("This server upgrades no connection: leave the Upgrade header out.")
        self._stage = BODY
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = _target(self.url)
        scope[ABORT] = self.transport.abort  # type: ignore[literal-required]
        scope[IS_GONE] = self._is_gone  # type: ignore[literal-required]
        cycle = self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(cycle, self.app)

    def _is_gone(self) -> bool:
        if self.transport.is_closing():
            return True
        descriptor = self.transport.get_extra_info("socket").fileno()
        poll = select.poll()
        poll.register(descriptor, _CLOSED)
        return bool(poll.poll(0))

    def _grow(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HEAD_TOO_LARGE)

    def _refuse(self, message: str) -> NoReturn:
        self._refusal = message
        raise Refused(message)

    def _is_running(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @override
    def send_400_response(self, msg: str) -> None:
        """For whatever the parser stopped at. It reads nothing more of this connection."""
        self._is_broken = True
        if self._is_running() and not self.cycle.more_body:
            # The request was whole; what is broken came after it. Its answer is the last one.
            self.cycle.keep_alive = False
        elif self._is_running() and self.cycle.response_started:
            self.transport.abort()  # in the midst of an answer no other may begin
        else:
            self._send_refusal(self._refusal or msg)

    def _send_refusal(self, msg: str) -> None:
        request_id = dashed(new_id()).encode()
        content = encode_error(_broken(msg))
        head = [
            STATUS_LINE[400],
            b"content-type: %b\r\n" % JSON,
            b"content-length: %d\r\n" % len(content),
            b"x-request-id: %b\r\n" % request_id,
            b"otari-request-id: %b\r\n" % request_id,
            b"x-otari-request-id: %b\r\n" % request_id,
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join(head) + content)
        self._hang_up()

    def _hang_up(self) -> None:
        """Lets the client read why first: closed with bytes of its unread, a socket is reset."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()


def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it was sent, query. Raises HttpParserInvalidURLError or UnicodeDecodeError."""
    if _PLAIN_PATH.fullmatch(url):
        return url.decode("ascii"), url, b""
    parsed = httptools.parse_url(url)
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


def _broken(message: str) -> ErrorBody:
    return InvalidRequest(message, code="invalid_http").body()
