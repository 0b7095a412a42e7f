"""An entry of the ledger, and a line of its sums, as clients read them."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from shared.clickhouse.usage import Entry
from shared.clickhouse.usage_summary import Line
from shared.money import plain

API = "/v1/"
FIELDS = (
    "id", "user_id", "api_key_id", "timestamp", "model", "provider", "endpoint", "prompt_tokens",
    "completion_tokens", "total_tokens", "cost", "status", "error_message",
    "api_key_public_id",
)  # fmt: skip
"""Otari's, in its order; then ours."""
SUMMARY_FIELDS = (
    "group", "requests", "errors", "attempts", "input_tokens", "output_tokens",
    "cached_input_tokens", "reasoning_tokens", "cost",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode


def entry_document(entry: Entry, key_ids: Mapping[str, UUID]) -> dict[str, Any]:
    """`key_ids`: by public id, of the keys that exist.

    Tokens and cost are told of calls that answered or were billed; a cost only where there was
    a price."""
    attempt = entry.attempt
    succeeded = attempt.status == "completed"
    is_metered = succeeded or attempt.billed
    prompt, completion = attempt.input_tokens, attempt.output_tokens
    key_id = key_ids.get(attempt.key_id or "")
    return {
        "id": str(attempt.request_id),
        "user_id": attempt.user or None,
        "api_key_id": None if key_id is None else str(key_id),
        "timestamp": attempt.created_at.isoformat(),
        "model": attempt.model,
        "provider": attempt.provider or None,
        "endpoint": path_of(attempt.endpoint),
        "prompt_tokens": prompt if is_metered else None,
        "completion_tokens": completion if is_metered else None,
        "total_tokens": prompt + completion if is_metered else None,
        "cost": entry.cost_usd if is_metered and attempt.is_priced else None,
        "status": "success" if succeeded else "error",
        "error_message": None if succeeded else attempt.error_code or attempt.status,
        "api_key_public_id": attempt.key_id or None,
    }


def line_document(line: Line, *, by: str) -> dict[str, Any]:
    document = msgspec.structs.asdict(line)
    cost = document.pop("cost_usd")
    group = path_of(line.group) if by == "endpoint" else line.group
    return {**document, "group": group, "cost": cost}


def path_of(endpoint: str) -> str:
    """Rows name it as OpenAI's libraries do: chat.completions."""
    return API + endpoint.replace(".", "/")


def endpoint_of(path: str) -> str:
    return path.removeprefix(API).replace("/", ".")


def to_json(documents: Iterable[Mapping[str, Any]]) -> bytes:
    """A list. Money as exact numbers: through a float 0.000026 might read otherwise."""
    return _encode([{name: _exact(value) for name, value in one.items()} for one in documents])


def _exact(value: Any) -> Any:
    return msgspec.Raw(plain(value).encode()) if isinstance(value, Decimal) else value
