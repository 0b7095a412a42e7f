"""httpx's request and response for the hot path: what nobody asks of them is never made.

Taking headers apart into httpx's own form costs more than writing and sending them. Here a head is
checked and written once per endpoint, and an answer's headers are taken apart when asked for.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import httpx
from typing_extensions import override

from workers.providers.http.request import Question, write_head
from workers.providers.http.response import Answer

LENGTH = b"Content-Length: %d\r\n\r\n"


class Endpoint:
    """Where calls of one kind go: a POST whose address and headers are the same for all of them."""

    def __init__(self, url: httpx.URL, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises `httpx.LocalProtocolError`. `headers` has neither Host nor Content-Length."""
        self.url = url
        constant = [(b"Host", url.netloc), *headers]
        # With a stream given, httpx adds no headers of its own.
        bare = httpx.Request("POST", url, headers=constant, stream=httpx.ByteStream(b""))
        self._head = write_head(bare).removesuffix(b"\r\n")

    def request(
        self, content: bytes, *, row_id: str, timeouts: Mapping[str, float | None]
    ) -> httpx.Request:
        """The call for one attempt. `row_id` is letters and digits: nothing else is checked here."""
        if not row_id.isalnum():
            raise httpx.LocalProtocolError("not sent: the row id is not letters and digits")
        own = b"x-client-request-id: %b\r\n" % row_id.encode("ascii")
        return PreparedRequest(self.url, self._head + own, content, timeouts)


class PreparedRequest(httpx.Request):
    """A request that can be sent as it is."""

    def __init__(
        self, url: httpx.URL, head: bytes, content: bytes, timeouts: Mapping[str, float | None]
    ) -> None:
        # Not httpx's own constructor, which is what this class is there to spare.
        self.method = "POST"
        self.url = url
        self.stream = httpx.ByteStream(content)
        self.extensions = {"timeout": timeouts}
        self._head = head
        self._body = content

    @cached_property
    @override
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """A copy, for whoever looks; what is sent is the head."""
        _, *lines = self._head.removesuffix(b"\r\n").split(b"\r\n")
        pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        return httpx.Headers([*pairs, (b"Content-Length", b"%d" % len(self._body))])

    def question(self) -> Question:
        length = len(self._body)
        return Question(self, self._head + LENGTH % length, self._body, None, length, False, True)


class LeanResponse(httpx.Response):
    """The response around an answer that is still coming in."""

    def __init__(self, answer: Answer, network_stream: object) -> None:
        # As httpx's own constructor leaves it, but for the headers.
        self.status_code = answer.status
        self.stream = answer
        self.next_request = None
        self.extensions: dict[str, Any] = {
            "http_version": b"HTTP/" + answer.version.encode(),
            "network_stream": network_stream,
        }
        self.history = []
        self.is_closed = False
        self.is_stream_consumed = False
        self.default_encoding = "utf-8"
        self._answer = answer
        self._request = answer.request
        self._num_bytes_downloaded = 0

    @cached_property
    @override
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        return httpx.Headers(self._answer.headers)
