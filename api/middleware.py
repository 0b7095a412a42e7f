"""The outermost layer of every request: its id, its limits, its metrics, and no error past it.

It is one plain ASGI callable around the FastAPI application. Hot routes are answered from here,
because the framework's own layers cost as much as authentication and admission together.
"""

import asyncio
from collections.abc import Container, Iterable, Mapping
from time import perf_counter
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access_log import AccessLog, Line
from api.body import COUNTED_ABOVE_BYTES, Bodies, ClientLeft, CountedBody, too_large
from api.drain import Drain
from api.problems import INTERNAL, send_error
from shared.catalog import Catalog
from shared.errors import GatewayError, Overloaded
from shared.ids import dashed, new_id
from shared.metrics import Metrics

REQUEST_ID = "request_id"
"""Key of the scope: this request's id, 32 hex digits."""
CLIENT_REQUEST_ID = "client_request_id"
"""Key of the scope: the client's own `x-request-id`, or None."""
MAX_CLIENT_REQUEST_ID = 128

OPEN_PATHS = frozenset({"/status", "/metrics"})
HEALTH_PREFIXES = ("/health", "/api/v1/health")
DOCUMENT_PATHS = frozenset({"/docs", "/redoc", "/openapi.json"})
"""Routes FastAPI adds by itself, outside what it notes in the scope."""
API_PREFIX = "/api/v1"
API_ALIAS = "/api"
"""`/api/v1/...` is `/v1/...` by another name; metrics and logs say `/v1/...`."""
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_LEFT_STATUS = 499
"""nginx's number for a client that closed the connection; never sent, only counted."""

CLOSE = (b"connection", b"close")
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
)
NO_STORE = (b"cache-control", b"private, no-store, no-cache")
VARY = b"vary"
VARY_BY = "Authorization"
VARIES = (VARY, VARY_BY.encode())

DRAINING = Overloaded("The gateway is shutting down.", code="draining").body()

log = structlog.get_logger()


class HasCatalog(Protocol):
    @property
    def current(self) -> Catalog: ...


class Edge:
    """One object per process; nothing of a request is kept on it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hot: Mapping[str, ASGIApp],
        catalog: HasCatalog,
        metrics: Metrics,
        drain: Drain,
        access_log: AccessLog | None = None,
        uploads: Container[str] = (),
    ) -> None:
        """`hot` maps an exact path to what answers a POST to it; `uploads` are those of them that
        pass a body on as it comes."""
        self._app = app
        self._hot = hot
        self._catalog = catalog
        self._metrics = metrics
        self._drain = drain
        self._bodies = Bodies()
        self._uploads = uploads
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = scope[REQUEST_ID] = new_id()
        path: str = scope["path"]
        is_health = path.startswith(HEALTH_PREFIXES)
        extra = _headers(request_id, is_health=is_health)
        drain = self._drain
        status = 0

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, extra, is_health=is_health, close=drain.draining)
            await send(message)

        try:
            await self._answer(scope, receive, reply, path, is_health or path in OPEN_PATHS)
        except asyncio.CancelledError:
            # A drain has run out of patience. A begun answer stays cut.
            if not status:
                await send_error(reply, DRAINING)
            raise
        except ClientLeft:
            status = status or CLIENT_LEFT_STATUS
        except GatewayError as error:
            if status:
                log.exception("A begun answer failed", action="late_error", request_id=request_id)
            else:
                await send_error(reply, error.body())
        except Exception:
            # A bug. The framework may have answered already; a begun answer stays cut.
            log.exception("A request broke", action="request_broken", request_id=request_id)
            if not status:
                await send_error(reply, INTERNAL)
        finally:
            self._count(scope, status or CLIENT_LEFT_STATUS, perf_counter() - started)

    async def _answer(
        self, scope: Scope, receive: Receive, reply: Send, path: str, is_open: bool
    ) -> None:
        if self._drain.refusing and not is_open:
            await send_error(reply, DRAINING)
            return
        limit = self._catalog.current.document.limits.max_body_bytes
        length, chunked = _read_head(scope)
        if length > limit:
            await send_error(reply, too_large(limit).body(), (CLOSE,))
            return
        hot = self._hot.get(path)
        app = hot if hot is not None and scope["method"] == "POST" else self._app
        if not chunked and length <= COUNTED_ABOVE_BYTES:
            await app(scope, receive, reply)
            return
        body = CountedBody(receive, None if path in self._uploads else self._bodies, limit)
        try:
            await app(scope, body, reply)
        finally:
            body.release()

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._route(scope)
        if route in OPEN_PATHS:
            return  # probes and scrapes would drown the rest
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if self._access_log is not None:
            line = Line(scope[REQUEST_ID], method, route, status, seconds)
            self._access_log.record(line)

    def _route(self, scope: Scope) -> str:
        """The template of the route that answered: never the path, which anybody can vary."""
        path: str = scope["path"]
        if path not in self._hot and path not in DOCUMENT_PATHS:
            path = getattr(scope.get("route"), "path", UNMATCHED)
        if path.startswith(HEALTH_PREFIXES):
            return path.removeprefix(API_PREFIX)
        return path[len(API_ALIAS) :] if path.startswith(API_PREFIX) else path


def _headers(request_id: str, *, is_health: bool) -> list[tuple[bytes, bytes]]:
    shown = dashed(request_id).encode()
    # Every name some client reads the id under (SDKs of OpenAI and of Otari, old and new).
    headers = [
        (b"x-request-id", shown),
        (b"otari-request-id", shown),
        (b"x-otari-request-id", shown),
        *SECURITY,
    ]
    if not is_health:
        headers += [(b"x-correlation-id", shown), (b"otari-attempt-id", shown)]
    return headers


def _add_headers(
    message: Message,
    extra: list[tuple[bytes, bytes]],
    *,
    is_health: bool,
    close: bool,
) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    if not is_health:
        _add_caching(headers)
    if close:
        headers.append(CLOSE)
    headers += extra
    message["headers"] = headers


def _add_caching(headers: list[tuple[bytes, bytes]]) -> None:
    """Nothing is to be stored by anyone; a stream says so in its own words."""
    names = [name for name, _ in headers]
    if NO_STORE[0] not in names:
        headers.append(NO_STORE)
    if VARY not in names:
        headers.append(VARIES)
        return
    present = [value.decode("latin-1") for name, value in headers if name == VARY]
    merged = {part.strip() for value in present for part in value.split(",")} | {VARY_BY}
    headers[:] = [header for header in headers if header[0] != VARY]
    headers.append((VARY, ", ".join(sorted(merged)).encode("latin-1")))


def _read_head(scope: Scope) -> tuple[int, bool]:
    """The declared length, and whether the body comes in chunks; notes the client's own id."""
    length, chunked = 0, False
    scope[CLIENT_REQUEST_ID] = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)  # the HTTP parser has refused anything but digits
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"x-request-id":
            scope[CLIENT_REQUEST_ID] = _printable(value)
    return length, chunked


def _printable(value: bytes) -> str | None:
    text = value.decode("latin-1")[:MAX_CLIENT_REQUEST_ID]
    return text if text.isascii() and text.isprintable() and text else None


def hot_paths(path: str) -> Iterable[str]:
    """Both names of an API path."""
    return (path, API_ALIAS + path)


def request_id_of(scope: Scope) -> str:
    """This request's id: 32 hex digits."""
    request_id: str = scope[REQUEST_ID]
    return request_id


def client_request_id_of(scope: Scope) -> str | None:
    """The `x-request-id` the client sent, if it can be kept."""
    client_request_id: str | None = scope[CLIENT_REQUEST_ID]
    return client_request_id
