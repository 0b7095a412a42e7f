"""One request and its answer on a connection: uvicorn's own, with a head that is checked in one go.

uvicorn searches every header's name and value for forbidden bytes one by one, which costs more than
anything else it does for an answer. Here the head is put together first and looked through once.
"""

import string
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

# RFC 9110 §5.6.2, the characters of a token, in lower case: all that a header's name may hold in
# ASGI. One in upper case would not be found among the framing either, and must not pass unseen.
_NAME_BYTES = (string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~").encode()
# RFC 9110 §5.5: no control characters but the tab.
_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t")) + b"\x7f"
_STATUS = {status: line.removesuffix(b"\r\n") for status, line in STATUS_LINE.items()}
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_WITHOUT_BODY = (204, 304)

Headers = list[tuple[bytes, bytes]]


class Cycle(RequestResponseCycle):
    """What uvicorn's does, in the same order, raising the same errors."""

    @override
    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._expect(message, "http.response.start")
            self._begin(message["status"], [*self.default_headers, *message.get("headers", ())])
        elif not self.response_complete:
            self._expect(message, "http.response.body")
            self._go_on(message.get("body", b""))
            if not message.get("more_body", False):
                self._complete()
        else:
            raise RuntimeError(f"'{message['type']}' was sent after the end of the response.")

    def _expect(self, message: Any, kind: str) -> None:
        if message["type"] != kind:
            raise RuntimeError(f"Expected ASGI message '{kind}', but got '{message['type']}'.")

    def _begin(self, status: int, headers: Headers) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        says_close = self._read_framing(headers)
        if not self.keep_alive and not says_close:
            headers.append((b"connection", b"close"))
        if (
            self.chunked_encoding is None
            and self.scope["method"] != "HEAD"
            and status not in _WITHOUT_BODY
        ):
            self.chunked_encoding = True
            headers.append((b"transfer-encoding", b"chunked"))
        self.transport.write(_head(status, headers))

    def _read_framing(self, headers: Headers) -> bool:
        """Takes over what the application decided; whether it closes the connection."""
        says_close = False
        for name, value in headers:
            if name not in _FRAMING:
                continue
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                says_close = True
        return says_close

    def _go_on(self, body: bytes) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            if body:  # an empty chunk would be the last
                self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        elif len(body) > self.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        else:
            self.expected_content_length -= len(body)
            self.transport.write(body)

    def _complete(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("Response content shorter than Content-Length")
        if self.chunked_encoding and self.scope["method"] != "HEAD":
            self.transport.write(b"0\r\n\r\n")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _head(status: int, headers: Headers) -> bytes:
    """Raises RuntimeError for a name or a value that could be read as something else."""
    names = [name for name, _ in headers]
    if b"" in names or b"".join(names).translate(None, _NAME_BYTES):
        raise RuntimeError("Invalid HTTP header name.")
    head = b"\r\n".join((_STATUS[status], *map(b": ".join, headers), b"", b""))
    # Our own line ends are known by number. Anything more, a line end above all, came in with a
    # value and would forge a header.
    plain = head.translate(None, _CONTROL_BYTES)
    if len(head) - len(plain) != 2 * (len(headers) + 2):
        raise RuntimeError("Invalid HTTP header value.")
    return head
