"""uvicorn's HTTP protocol with bounds on a request's head, and our own words for a broken one.

httptools parses a head of any size, header after header, into memory, and a connection that never
sends anything stays open for ever; both are bounded here.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any
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
MAX_HEAD_BYTES = 64 << 10
"""Names, values and the URL together; Node's and nginx's defaults are 16 and 32 KiB."""
FIRST_BYTE_SECONDS = 30.0
"""A new connection that says nothing for so long is closed."""


CLIENT_LEFT = "client_left"
"""Key of the scope: set once the connection was lost before the answer was complete."""
ON_CLIENT_LEFT = "on_client_left"
"""Key of the scope: what to call at that moment. A task that waits for `http.disconnect` would say
the same, at the price of a task for every request."""


class HeadTooLarge(Exception):
    """The parser wraps it; what the client sees is a plain 400."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(joined(transport))
        # uvicorn cancels this timer with the first byte, like that of a kept-alive connection.
        self.timeout_keep_alive_task = self.loop.call_later(
            FIRST_BYTE_SECONDS, self.timeout_keep_alive_handler
        )

    @override
    def connection_lost(self, exc: Exception | None) -> None:
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
    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    @override
    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        # uvicorn's own words and `_grow`'s, without further calls for every header.
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    @override
    def on_headers_complete(self) -> None:
        """As uvicorn's, for the server as it is configured: no upgrades, no limit of concurrency."""
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = _target(self.url)
        running: RequestResponseCycle | None = self.cycle  # None at first, whatever its type says
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
        if running is None or running.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # pipelined: its turn comes when the one before it is answered
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _grow(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLarge

    @override
    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            msg = "The request's headers are too large."
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
        self.transport.close()


def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it was sent, query. Raises HttpParserInvalidURLError or UnicodeDecodeError."""
    if _PLAIN_PATH.fullmatch(url):
        return url.decode("ascii"), url, b""
    parsed = httptools.parse_url(url)
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


def _broken(message: str) -> ErrorBody:
    return InvalidRequest(message, code="invalid_http").body()
