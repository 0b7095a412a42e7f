"""httpx's request and response for the hot path: what nobody asks of them is never made.

Taking headers apart into httpx's own form costs more than writing and sending them. Here a head is
checked and written once per endpoint, and an answer's headers are taken apart when asked for.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import httpx
from typing_extensions import override

from workers.providers.http.connection import NetworkStream
from workers.providers.http.pool import NO_PINS
from workers.providers.http.request import Origin, Question, origin_of, write_head
from workers.providers.http.response import Answer

PINS = "pins"
"""The extension of an ordinary request that holds them."""
OWN_LINES = b"x-client-request-id: %b\r\nContent-Length: %d\r\n\r\n"


class Endpoint:
    """Where calls of one kind go: a POST whose address and headers are the same for all of them."""

    def __init__(self, url: httpx.URL, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises `httpx.LocalProtocolError`. `headers` has neither Host nor Content-Length."""
        self.url = url
        self.origin = origin_of(url)
        constant = [(b"Host", url.netloc), *headers]
        # With a stream given, httpx adds no headers of its own.
        bare = httpx.Request("POST", url, headers=constant, stream=httpx.ByteStream(b""))
        self._head = write_head(bare).removesuffix(b"\r\n")

    def request(
        self,
        content: bytes,
        *,
        row_id: str,
        timeouts: Mapping[str, float | None],
        pins: frozenset[str] = NO_PINS,
    ) -> httpx.Request:
        """The call for one attempt. `row_id` is letters and digits: nothing else is checked here.

        `pins`: it goes only to a peer with one of these keys (SHA-256 of its SPKI, in hex).
        """
        if not (row_id.isalnum() and row_id.isascii()):
            raise httpx.LocalProtocolError("not sent: the row id is not letters and digits")
        head = self._head + OWN_LINES % (row_id.encode(), len(content))
        return PreparedRequest(self, head, content, timeouts, pins)


class PreparedRequest(httpx.Request):
    """A request that can be sent as it is. What httpx calls its parts is made when asked for."""

    method = "POST"

    def __init__(
        self,
        endpoint: Endpoint,
        head: bytes,
        content: bytes,
        timeouts: Mapping[str, float | None],
        pins: frozenset[str] = NO_PINS,
    ) -> None:
        # Not httpx's own constructor, which is what this class is there to spare.
        self.url = endpoint.url
        self.origin: Origin = endpoint.origin
        self.timeouts = timeouts
        self.pins = pins
        self._head = head
        self.body = content

    def question(self) -> Question:
        return Question(self, self._head, self.body, None, len(self.body), False, True)

    @cached_property
    @override
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """A copy, for whoever looks; what is sent is the head."""
        _, *lines = self._head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        return httpx.Headers(
            [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        )

    @cached_property
    @override
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]
        return httpx.ByteStream(self.body)

    @cached_property
    @override
    def extensions(self) -> dict[str, Any]:  # type: ignore[override]
        return {"timeout": self.timeouts, PINS: self.pins}


def pinned(request: httpx.Request, pins: frozenset[str]) -> httpx.Request:
    """The request, bound to peers with these keys."""
    if isinstance(request, PreparedRequest):
        request.pins = pins
    else:
        request.extensions[PINS] = pins
    return request


class LeanResponse(httpx.Response):
    """The response around an answer that is still coming in."""

    # As httpx's own constructor leaves them.
    next_request = None
    is_closed = False
    is_stream_consumed = False
    default_encoding = "utf-8"
    _num_bytes_downloaded = 0

    def __init__(self, answer: Answer, network_stream: NetworkStream) -> None:
        self.status_code = answer.status
        self.stream = answer
        self._answer = answer
        self._request = answer.request
        self.network_stream = network_stream

    def header(self, name: bytes) -> bytes:
        """One header's value, empty where there is none, without taking the others apart. `name` is
        in lowercase."""
        for one, value in self._answer.headers:
            if len(one) == len(name) and one.lower() == name:
                return value
        return b""

    @cached_property
    @override
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        return httpx.Headers(self._answer.headers)

    @cached_property
    @override
    def extensions(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            "http_version": b"HTTP/" + self._answer.version.encode(),
            "network_stream": self.network_stream,
        }

    @cached_property
    @override
    def history(self) -> list[httpx.Response]:  # type: ignore[override]
        return []
