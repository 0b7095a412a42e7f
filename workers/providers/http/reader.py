"""Parses what one connection receives and fills its answers.

The grammar is llhttp's, through httptools, in its strict mode (RFC 9112). What llhttp leaves to
its user is decided here: interim answers, the bound on heads, and bytes after the end.
"""

import httptools

from workers.providers.http.response import Answer

HEAD_LIMIT_BYTES = 64 * 1024  # status line, headers, interim answers; providers send about 2 KiB


class MalformedError(Exception):
    """The bytes are no answer to the question. The connection cannot be read any further."""


class Reader:
    """One per connection, one answer at a time."""

    def __init__(self) -> None:
        self.complete = False
        self.keep_alive = True
        self._answer: Answer | None = None
        self._head_only = False
        self._overhead = 0  # bytes read since the last one that belonged to a body
        self._headers: list[tuple[bytes, bytes]] = []
        # The parser takes its callbacks once, so the list stays the same one; append is all C.
        self._chunks: list[bytes] = []
        self.on_body = self._chunks.append
        self._parser = httptools.HttpResponseParser(self)

    def expect(self, answer: Answer) -> None:
        """The next bytes are this answer's."""
        self._answer = answer
        self._head_only = answer.request.method == "HEAD"
        self._headers = []
        self._overhead = 0
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Hands over what the bytes hold, then raises MalformedError if they went wrong."""
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            raise MalformedError(str(cause or error)) from error
        finally:
            self._hand_over()
        if self._overhead > HEAD_LIMIT_BYTES and not self.complete:
            raise MalformedError("headers, trailers or framing beyond the limit")

    def _hand_over(self) -> None:
        """All chunks of one read become one piece."""
        chunks, answer = self._chunks, self._answer
        if chunks and answer is not None and answer.status:
            self._overhead = 0
            answer.push(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            chunks.clear()

    # What the parser calls. An exception stops it.

    def on_message_begin(self) -> None:
        if self.complete:
            raise MalformedError("bytes after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []  # what comes in from now on are trailers
        if status == 101 or status < 100:
            raise MalformedError(f"status {status}, which nobody asked for")
        if status >= 200 and self._answer is not None:
            self._begin(self._answer, status, headers)

    def _begin(self, answer: Answer, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise MalformedError("not HTTP/1.1 or 1.0")
        if self._overhead > HEAD_LIMIT_BYTES and _size(headers) > HEAD_LIMIT_BYTES:
            raise MalformedError("headers beyond the limit")
        self.keep_alive = self._parser.should_keep_alive()
        answer.begin(status, headers, version)
        if self._head_only:  # httptools cannot tell llhttp so: the parser has read its last answer
            self.complete = True
            raise MalformedError("no body follows a HEAD")

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self.complete = True
        else:  # an interim answer, RFC 9110 §15.2: skipped
            self._chunks.clear()


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
