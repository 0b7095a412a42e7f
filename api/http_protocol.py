"""uvicorn's HTTP protocol with bounds on a request's head, and our own words for a broken one.

httptools parses a head of any size, header after header, into memory, and a connection that never
sends anything stays open for ever; both are bounded here.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.joined_writes import joined
from api.problems import JSON, encode_error
from shared.errors import ErrorBody, InvalidRequest
from shared.ids import dashed, new_id

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
        self._grow(len(name) + len(value))
        super().on_header(name, value)

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


def _broken(message: str) -> ErrorBody:
    return InvalidRequest(message, code="invalid_http").body()
