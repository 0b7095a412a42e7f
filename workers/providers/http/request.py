"""The question as it goes onto the socket: an `httpx.Request` checked and turned into bytes.

Nothing that could be read as two requests leaves here: control characters in a name or a value,
two framings, or a length that contradicts the content are an `httpx.LocalProtocolError`, raised
before a connection is touched.
"""

import string
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import httpx

# RFC 9110 §5.6.2, the characters of a token: all that a method or a header name may hold.
_TOKEN_BYTES = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()
_WATCHED = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})


Origin = tuple[str, bytes, int | None]
"""Scheme, host and port: connections are kept by it."""


def origin_of(url: httpx.URL) -> Origin:
    return (url.scheme, url.raw_host, url.port)


class Question(NamedTuple):
    """One request, ready to be written: its content, or the stream that will give it."""

    request: httpx.Request
    head: bytes
    content: bytes
    body: httpx.AsyncByteStream | None
    length: int  # as declared; 0 without a body and with chunked framing
    chunked: bool
    keep_alive: bool


def build_request(
    url: httpx.URL,
    headers: Iterable[tuple[bytes, bytes]],
    content: bytes,
    *,
    timeouts: Mapping[str, float | None] | None = None,
) -> httpx.Request:
    """The cheapest valid POST: `Host` and `Content-Length` are added, so `headers` has neither.

    `timeouts` is httpx's dict (`httpx.Timeout(...).as_dict()`), made once by the caller.
    """
    return httpx.Request(
        "POST",
        url,
        headers=[(b"Host", url.netloc), *headers, (b"Content-Length", b"%d" % len(content))],
        stream=httpx.ByteStream(content),
        extensions=None if timeouts is None else {"timeout": timeouts},
    )


def encode(request: httpx.Request) -> Question:
    """Checks the request and writes its head. Raises `httpx.LocalProtocolError`."""
    head, watched = _written(request)
    chunked, length = _framing(request, watched)
    keep_alive = b"close" not in watched.get(b"connection", b"").lower()
    stream = request.stream
    if isinstance(stream, httpx.ByteStream) and not chunked:
        content = b"".join(stream)
        if len(content) != length:
            raise _refused(request, "the content does not have the length its header declares")
        return Question(request, head, content, None, length, chunked, keep_alive)
    if not isinstance(stream, httpx.AsyncByteStream):
        raise _refused(request, "the body is a synchronous stream")
    return Question(request, head, b"", stream, length, chunked, keep_alive)


def write_head(request: httpx.Request) -> bytes:
    """The head alone, checked. Raises `httpx.LocalProtocolError`."""
    head, _ = _written(request)
    return head


def _written(request: httpx.Request) -> tuple[bytes, dict[bytes, bytes]]:
    # A method outside ASCII becomes `?`, which no token holds: refused below like any other.
    method = request.method.encode("ascii", "replace")
    names, lines, watched = [method], [b"%b %b HTTP/1.1" % (method, request.url.raw_path)], {}
    for name, value in request.headers.raw:
        names.append(name)
        lines.append(b"%b: %b" % (name, value))
        lowered = name.lower()
        if lowered in _WATCHED:
            if lowered in watched:
                raise _refused(request, "a framing header is given twice")
            watched[lowered] = value
    if b"" in names or b"".join(names).translate(None, _TOKEN_BYTES) or method == b"CONNECT":
        raise _refused(request, "a method or a header name is not allowed")
    if b"host" not in watched:
        raise _refused(request, "the Host header is missing")
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    # One line end per line: any further CR or LF came in with a value and would forge a header.
    if not head.count(b"\r") == head.count(b"\n") == len(lines) or b"\0" in head:
        raise _refused(request, "a header value holds a control character")
    return head, watched


def _framing(request: httpx.Request, watched: dict[bytes, bytes]) -> tuple[bool, int]:
    coding, length = watched.get(b"transfer-encoding"), watched.get(b"content-length", b"0")
    if coding is None:
        if not length.isdigit():
            raise _refused(request, "the Content-Length is not a number")
        return False, int(length)
    if b"content-length" in watched or coding.lower() != b"chunked":
        raise _refused(request, "the body must be chunked or have a length, not both")
    return True, 0


def _refused(request: httpx.Request, reason: str) -> httpx.LocalProtocolError:
    return httpx.LocalProtocolError(f"not sent: {reason}", request=request)
