"""Turns every failure into the one error envelope, for raw ASGI routes and for FastAPI's alike."""

import http
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Send

from shared.errors import (
    Conflict,
    ErrorBody,
    Fault,
    GatewayError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Overloaded,
    RequestTimedOut,
    RequestTooLarge,
    TimedOut,
    TooManyRequests,
    UnsupportedMediaType,
    UpstreamFailed,
)

JSON = b"application/json"
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
"""Those that a route of ours may have."""
INTERNAL = Internal("An internal error occurred.").body()
ROUTE_NOT_FOUND = NotFound("Not Found", code="route_not_found").body()

BY_STATUS: dict[int, type[GatewayError]] = {
    error.status: error
    for error in (
        InvalidRequest, NotAuthenticated, NotPermitted, NotFound, MethodNotAllowed,
        RequestTimedOut, Conflict, RequestTooLarge, UnsupportedMediaType, TooManyRequests, Internal,
        UpstreamFailed, Overloaded, TimedOut,
    )
}  # fmt: skip

_encode = msgspec.json.Encoder().encode


def encode_error(body: ErrorBody) -> bytes:
    """The document of an error, as clients read it."""
    return _encode(body.document())


def error_headers(body: ErrorBody) -> list[tuple[bytes, bytes]]:
    """Retry-After in whole seconds, at least one: where the error knows, and always on 429, 503;
    and on 401 how to do better."""
    if body.status == NotAuthenticated.status:
        return [(b"www-authenticate", b"Bearer")]
    if body.retry_after is None and body.status not in {429, 503}:
        return []
    return [(b"retry-after", str(max(1, math.ceil(body.retry_after or 1))).encode())]


async def send_error(
    send: Send, body: ErrorBody, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answers a raw ASGI request with an error. Nothing may have been sent before."""
    content = encode_error(body)
    start = [
        (b"content-type", JSON),
        (b"content-length", str(len(content)).encode()),
        *error_headers(body),
        *headers,
    ]
    await send({"type": "http.response.start", "status": body.status, "headers": start})
    await send({"type": "http.response.body", "body": content})


def respond(body: ErrorBody, headers: Mapping[str, str] | None = None) -> Response:
    """The same for a route of FastAPI's."""
    response = Response(encode_error(body), body.status, media_type="application/json")
    for name, value in error_headers(body):
        response.headers[name.decode()] = value.decode()
    response.headers.update(headers or {})
    return response


def install(app: FastAPI) -> None:
    """Registers the handlers below for everything FastAPI's own routes can raise."""
    app.add_exception_handler(GatewayError, on_gateway_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(Exception, on_bug)


async def on_gateway_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101  (registered for nothing else)
    return respond(error.body())


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework raises by itself: no such route, wrong method, unreadable body."""
    assert isinstance(error, HTTPException)  # noqa: S101
    # FastAPI wraps whatever breaks the reading of a body; our own errors keep their meaning.
    if isinstance(error.__cause__, GatewayError):
        return respond(error.__cause__.body())
    headers = dict(error.headers or {})
    if error.status_code == MethodNotAllowed.status:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return respond(body_of_status(error.status_code, str(error.detail)), headers)


async def on_validation_error(_request: Request, error: Exception) -> Response:
    """422 with Otari's list; what the client sent is never repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    faults = tuple(_fault(item) for item in error.errors())
    first = faults[0]
    param = ".".join(str(part) for part in first.loc[1:]) or None
    body = ErrorBody(
        status=422,
        type=InvalidRequest.type,
        code=InvalidRequest.default_code,
        message=f"{param}: {first.msg}" if param else first.msg,
        param=param,
        faults=faults,
    )
    return respond(body)


async def on_bug(_request: Request, _error: Exception) -> Response:
    """The framework raises the error again after this answer; the outermost layer logs it."""
    return respond(INTERNAL)


def _methods(request: Request) -> set[str]:
    """Of all routes of this path: the framework names those of the first alone."""
    return {
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] == Match.FULL
    }


def body_of_status(status: int, message: str) -> ErrorBody:
    """The error a bare status stands for, with a message that is safe to show."""
    if status == NotFound.status and message == http.HTTPStatus.NOT_FOUND.phrase:
        return ROUTE_NOT_FOUND
    known = BY_STATUS.get(status)
    if known is not None:
        return known(message).body()
    kind = InvalidRequest.type if status < Internal.status else Internal.type
    return ErrorBody(status=status, type=kind, message=message)


def _fault(item: Mapping[str, Any]) -> Fault:
    return Fault(loc=tuple(item["loc"]), msg=str(item["msg"]), type=str(item["type"]))
