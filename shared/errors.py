"""Every error a caller can be told about, in one tree.

    GatewayError                 code, status, retryable, a message safe to show
    ├── InvalidRequest           400  the body or a parameter is wrong
    ├── NotAuthenticated         401  no key, or one we do not know
    ├── NotPermitted             403  known, but not allowed
    ├── NotFound                 404  no such model, user, route
    ├── MethodNotAllowed         405
    ├── RequestTimedOut          408  the client was too slow
    ├── Conflict                 409  what is to be made exists
    ├── RequestTooLarge          413
    ├── UnsupportedMediaType     415
    ├── TooManyRequests          429  our limit, or the provider's
    ├── Internal                 500  a bug of ours
    ├── UpstreamFailed           502  the provider failed, after retries and fallback
    ├── Overloaded               503  queue full, a store away, draining
    └── TimedOut                 504  the provider, or the queue, was too slow

An error crosses the queue as an `ErrorBody` and comes out as the same document on the other side.
Messages are ours: a provider's text appears only where the API page allows it (400 and 422,
redacted and cut), because it may echo the prompt.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a body or a query: Otari's validation item. It never echoes a value."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on its way through the queue; later fields are optional."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    """Seconds; becomes the Retry-After header, rounded up."""
    faults: tuple[Fault, ...] = ()
    """For a malformed body: what `detail` lists."""

    def document(self) -> dict[str, object]:
        """The body clients read: OpenAI's envelope, and Otari's `detail` beside it."""
        error = {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "param": self.param,
        }
        return {"error": error, "detail": self.faults or self.message}


class GatewayError(Exception):
    """The base. Subclasses fix `status`, `type` and whether trying again can help."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str | None] = None
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after
        self.faults = tuple(faults)

    def body(self) -> ErrorBody:
        return ErrorBody(
            status=self.status,
            type=self.type,
            message=self.message,
            code=self.code,
            param=self.param,
            retry_after=self.retry_after,
            faults=self.faults,
        )


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class NotAuthenticated(GatewayError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class NotPermitted(GatewayError):
    status = 403
    type = "permission_error"


class NotFound(GatewayError):
    status = 404
    type = "not_found_error"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "method_not_allowed"


class RequestTimedOut(GatewayError):
    status = 408
    type = "timeout_error"
    default_code = "request_timeout"


class Conflict(GatewayError):
    status = 409
    type = "conflict_error"


class RequestTooLarge(GatewayError):
    status = 413
    type = "request_too_large"


class UnsupportedMediaType(GatewayError):
    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class TooManyRequests(GatewayError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retryable = True


class Internal(GatewayError):
    status = 500
    type = "api_error"
    default_code = "internal_error"


class UpstreamFailed(GatewayError):
    status = 502
    type = "upstream_error"
    default_code = "upstream_error"
    retryable = True


class Overloaded(GatewayError):
    status = 503
    type = "overloaded_error"
    default_code = "store_unavailable"
    retryable = True

    def __init__(self, message: str, *, code: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message, code=code, retry_after=retry_after)


class TimedOut(GatewayError):
    status = 504
    type = "timeout_error"
    default_code = "upstream_timeout"
    retryable = True
