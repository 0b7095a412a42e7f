"""What a provider's failure becomes for the client, and whether trying again can help.

400/422 → 400 with the provider's message (redacted, cut); 404 → 404; 401/403 → 502, since our
credentials were rejected, not the client's; 429 → 429 with its Retry-After; timeouts → 504; all
else → 502. The same table on every endpoint.
"""

from typing import Any, Literal

import httpx
import msgspec

from shared.errors import (
    GatewayError,
    InvalidRequest,
    NotFound,
    TimedOut,
    TooManyRequests,
    UpstreamFailed,
)
from shared.log import REDACTED, SECRETS
from workers.providers.http.response import ResponseTooLarge

MESSAGE_CHARACTERS = 400
MAX_RETRY_AFTER_SECONDS = 3600.0
DEFAULT_RETRY_AFTER_SECONDS = 1.0

Remedy = Literal["retry", "elsewhere", "none"]
"""`retry`: the same provider may do it next time; `elsewhere`: only another one; `none`."""


class AttemptFailed(Exception):
    """One attempt failed; `error` is what the client gets if nobody else answers."""

    def __init__(
        self, error: GatewayError, remedy: Remedy, *, against_provider: bool = True
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.remedy = remedy
        self.against_provider = against_provider


def from_status(status: int, headers: httpx.Headers, body: bytes) -> AttemptFailed:
    """The failure an upstream's status other than 2xx stands for."""
    if status in (400, 422):
        return AttemptFailed(InvalidRequest(provider_message(body)), "none", against_provider=False)
    if status == 404:
        error = NotFound(
            "The model's provider does not have it at this endpoint.",
            code="model_not_found",
            param="model",
        )
        return AttemptFailed(error, "none", against_provider=False)
    if status in (401, 403):
        message = "The provider rejected the gateway's credentials."
        return AttemptFailed(UpstreamFailed(message, code="upstream_rejected_credentials"), "none")
    if status == 429:
        limited = TooManyRequests(
            "The provider is limiting requests.",
            code="upstream_rate_limited",
            retry_after=retry_after(headers),
        )
        return AttemptFailed(limited, "retry", against_provider=False)
    if status in (408, 504):
        return AttemptFailed(TimedOut("The provider timed out."), "retry")
    remedy: Remedy = "retry" if status >= 500 else "none"
    return AttemptFailed(UpstreamFailed(f"The provider answered with status {status}."), remedy)


def from_transport(error: Exception) -> AttemptFailed:
    """The failure a broken call stands for."""
    if isinstance(error, ResponseTooLarge):
        return protocol_error("The provider's answer is too large.")
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.PoolTimeout):
        return AttemptFailed(UpstreamFailed("The provider cannot be reached."), "retry")
    if isinstance(error, httpx.TimeoutException):
        return AttemptFailed(TimedOut("The provider was too slow."), "elsewhere")
    return AttemptFailed(UpstreamFailed("The connection to the provider broke."), "retry")


def protocol_error(message: str) -> AttemptFailed:
    """An answer that is not what the endpoint promises."""
    return AttemptFailed(UpstreamFailed(message, code="upstream_protocol_error"), "none")


def provider_message(body: bytes) -> str:
    """The provider's own words about a bad request: redacted, cut, or a sentence of ours."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        document = None
    error = document.get("error") if isinstance(document, dict) else None
    # Most nest {"message"}; one provider sends `error` as a bare string.
    text = error.get("message") if isinstance(error, dict) else error
    if not isinstance(text, str) or not text:
        return "The provider rejected the request."
    return SECRETS.sub(REDACTED, text)[:MESSAGE_CHARACTERS]


def retry_after(headers: httpx.Headers) -> float:
    """Seconds; a missing, absurd or dated header counts as one second."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return DEFAULT_RETRY_AFTER_SECONDS
    if not 0 <= seconds <= MAX_RETRY_AFTER_SECONDS:
        return DEFAULT_RETRY_AFTER_SECONDS
    return seconds
