"""What a provider's failure becomes: the table of the API page, row by row."""

import httpx
import pytest

from workers.inference.upstream_errors import from_status, from_transport, provider_message
from workers.providers.http.response import ResponseTooLarge

REQUEST = httpx.Request("POST", "http://provider/")


@pytest.mark.parametrize(
    ("status", "ours", "code", "remedy"),
    [
        (400, 400, "invalid_value", "none"),
        (422, 400, "invalid_value", "none"),
        (404, 404, "model_not_found", "none"),
        (401, 502, "upstream_rejected_credentials", "none"),
        (403, 502, "upstream_rejected_credentials", "none"),
        (408, 504, "upstream_timeout", "retry"),
        (429, 429, "upstream_rate_limited", "retry"),
        (500, 502, "upstream_error", "retry"),
        (503, 502, "upstream_error", "retry"),
        (504, 504, "upstream_timeout", "retry"),
        (302, 502, "upstream_error", "none"),
        (418, 502, "upstream_error", "none"),
    ],
)
def test_an_upstream_status_becomes(status: int, ours: int, code: str, remedy: str) -> None:
    failed = from_status(status, httpx.Headers(), b"{}")
    assert (failed.error.status, failed.error.code, failed.remedy) == (ours, code, remedy)


@pytest.mark.parametrize(
    ("error", "status", "remedy"),
    [
        (httpx.ConnectError("x"), 502, "retry"),
        (httpx.ConnectTimeout("x"), 502, "retry"),
        (httpx.ReadTimeout("x"), 504, "elsewhere"),
        (httpx.RemoteProtocolError("x"), 502, "retry"),
        (ResponseTooLarge("x", request=REQUEST), 502, "none"),
    ],
)
def test_a_broken_call_becomes(error: Exception, status: int, remedy: str) -> None:
    failed = from_transport(error)
    assert (failed.error.status, failed.remedy) == (status, remedy)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0.5", 0.5), ("-1", 1), ("1e9", 1), ("nan", 1), ("Wed, 21 Oct 2026", 1), ("", 1)],
)
def test_a_providers_retry_after_is_passed_on_when_it_makes_sense(
    header: str, seconds: float
) -> None:
    failed = from_status(429, httpx.Headers({"retry-after": header}), b"")
    assert failed.error.retry_after == seconds


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long"}}', "too long"),
        (b'{"error":"No ZDR providers"}', "No ZDR providers"),
        (b'{"error":{"message":"key sk-abcdefgh12345678 bad"}}', "key [redacted] bad"),
        (b"not json", "The provider rejected the request."),
        (b"[" * 5000, "The provider rejected the request."),
        (b'{"error":{"message":7}}', "The provider rejected the request."),
    ],
)
def test_a_providers_words_are_redacted(body: bytes, message: str) -> None:
    assert provider_message(body) == message


def test_a_providers_words_are_cut() -> None:
    assert len(provider_message(b'{"error":"' + b"x" * 9999 + b'"}')) == 400
