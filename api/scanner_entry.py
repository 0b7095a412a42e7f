"""A request of the Scanner, and its statistics, as clients read them.

What is told is named here, one by one: never whose a request was, nor what it said.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from api.usage_entry import path_of
from shared.clickhouse.scanner import Attempt, Shown, Whole
from shared.clickhouse.scanner_statistics import Quantiles, Statistics, Sums
from shared.clickhouse.usage_filter import EPOCH
from shared.money import ZERO, plain

KINDS = (
    "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens",
    "audio_input_tokens", "audio_output_tokens", "cache_write_tokens", "images", "seconds", "pages",
    "characters", "tool_calls",
)  # fmt: skip
TOKENS = KINDS[:4]

encode = msgspec.json.Encoder().encode


def request_document(shown: Shown, label: str | None) -> dict[str, Any]:
    """Tokens and cost are told of calls that answered or were billed; a cost only where there was a
    price."""
    is_metered = shown.is_metered
    return {
        "id": str(shown.request_id),
        "created_at": shown.created_at.isoformat(),
        "status": shown.status,
        "model": shown.model,
        "creator": shown.creator or None,
        "provider": shown.provider or None,
        "tier": shown.tier or None,
        "endpoint": path_of(shown.endpoint),
        "application": shown.application or None,
        "streamed": shown.streamed,
        "cached": shown.cached,
        "attempt_count": shown.attempt,
        "input_tokens": shown.input_tokens if is_metered else None,
        "output_tokens": shown.output_tokens if is_metered else None,
        "cost": exact(shown.cost_usd) if is_metered and shown.is_priced else None,
        "latency_ms": rounded(shown.latency_ms),
        "ttft_ms": rounded(shown.ttft_ms),
        "attestation": label,
    }


def whole_document(found: Whole, label: str | None) -> dict[str, Any]:
    is_priced = found.shown.is_priced
    return {
        **request_document(found.shown, label),
        "attempt_count": len(found.attempts),
        "attempts": [_attempt_document(one, is_priced=is_priced) for one in found.attempts],
    }


def _attempt_document(attempt: Attempt, *, is_priced: bool) -> dict[str, Any]:
    usage = {name: exact(getattr(attempt, name)) for name in KINDS}
    return {
        "attempt": attempt.attempt,
        "status": attempt.status,
        "model": attempt.model,
        "provider": attempt.provider or None,
        "started_at": attempt.started_at.isoformat(),
        "ended_at": attempt.ended_at.isoformat(),
        "upstream_ms": rounded(attempt.upstream_ms),
        "ttft_ms": rounded(attempt.ttft_ms),
        "usage": usage if attempt.is_metered else None,
        "usage_source": attempt.usage_source,
        "cost": exact(attempt.cost_usd) if attempt.is_metered and is_priced else None,
    }


def statistics_document(found: Statistics, window: str) -> dict[str, Any]:
    return {
        "object": "scanner.statistics",
        "window": window,
        "since": found.since.isoformat(),
        "as_of": None if found.as_of <= EPOCH else found.as_of.isoformat(),
        **_sums_document(found.total),
        "active_models": found.active_models,
        "active_providers": 0 if found.total is None else len(found.total.providers),
        "models": [{**_name_document(one), **_sums_document(one)} for one in found.models],
    }


def model_document(found: Sums) -> dict[str, Any]:
    return {
        **_name_document(found),
        "requests": found.requests,
        "last_used_at": found.last_at.isoformat(),
    }


def _name_document(sums: Sums) -> dict[str, Any]:
    return {
        "model": sums.model,
        "creators": _names(sums.creators),
        "providers": _names(sums.providers),
        "tiers": _names(sums.tiers),
    }


def _sums_document(sums: Sums | None) -> dict[str, Any]:
    counts = ("requests", "completed", "failed", "cancelled", *TOKENS)
    none = Quantiles(None, None)
    latency, ttft = (none, none) if sums is None else (sums.latency, sums.ttft)
    return {
        **{name: 0 if sums is None else getattr(sums, name) for name in counts},
        "cost": exact(ZERO if sums is None else sums.cost_usd),
        "latency_ms": _quantiles_document(latency),
        "ttft_ms": _quantiles_document(ttft),
    }


def _quantiles_document(found: Quantiles) -> dict[str, Any]:
    return {"median": rounded(found.median), "p95": rounded(found.p95)}


def _names(found: Sequence[str]) -> list[str]:
    return sorted(name for name in found if name)


def rounded(milliseconds: float | None) -> float | None:
    """To a microsecond, which is what times are kept in."""
    return None if milliseconds is None else round(milliseconds, 3)


def exact(amount: Any) -> Any:
    """Money as an exact number: through a float 0.000026 might read otherwise."""
    return msgspec.Raw(plain(amount).encode()) if isinstance(amount, Decimal) else amount
