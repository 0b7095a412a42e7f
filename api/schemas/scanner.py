"""What the Scanner tells: requests, their attempts, statistics."""

from api.schemas.terms import BOOLEAN, NUMBER, STRING, Json

_COUNT: Json = {"type": "integer", "minimum": 0}
_COUNT_OR_NONE: Json = {"type": ["integer", "null"], "minimum": 0}
_TEXT_OR_NONE: Json = {"type": ["string", "null"]}
_NUMBER_OR_NONE: Json = {"type": ["number", "null"]}
_MOMENT: Json = {**STRING, "format": "date-time"}
_NAMES: Json = {"type": "array", "items": STRING}
_STATUS: Json = {"enum": ["completed", "failed", "cancelled"]}
_COST: Json = {**_NUMBER_OR_NONE, "description": "US dollars, exactly."}


def _object(properties: dict[str, Json]) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(schema: str, **more: Json) -> Json:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}
    return _object({"object": {"const": "list"}, "data": items, **more})


_ENTRY: dict[str, Json] = {
    "id": {**STRING, "description": "The request's `x-request-id`."},
    "created_at": _MOMENT,
    "status": _STATUS,
    "model": STRING,
    "creator": {
        **_TEXT_OR_NONE,
        "description": "Of the model at its provider: the part before the slash.",
    },
    "provider": _TEXT_OR_NONE,
    "tier": {"enum": ["TEE", "ZDR", None]},
    "endpoint": STRING,
    "application": {**_TEXT_OR_NONE, "description": "The tag of this name."},
    "streamed": BOOLEAN,
    "cached": BOOLEAN,
    "attempt_count": _COUNT,
    "input_tokens": _COUNT_OR_NONE,
    "output_tokens": _COUNT_OR_NONE,
    "cost": _COST,
    "latency_ms": {**NUMBER, "description": "From admission to the end."},
    "ttft_ms": {**_NUMBER_OR_NONE, "description": "Of the attempt that answered."},
    "attestation": {**_TEXT_OR_NONE, "description": "The label of its receipt."},
}
_USAGE: Json = {
    "type": ["object", "null"],
    "description": "By kind; null where nothing was used.",
    "additionalProperties": NUMBER,
}
_ATTEMPT: dict[str, Json] = {
    "attempt": _COUNT,
    "status": _STATUS,
    "model": STRING,
    "provider": _TEXT_OR_NONE,
    "started_at": _MOMENT,
    "ended_at": _MOMENT,
    "upstream_ms": NUMBER,
    "ttft_ms": _NUMBER_OR_NONE,
    "usage": _USAGE,
    "usage_source": {"enum": ["provider", "estimated", "none"]},
    "cost": _COST,
}
_QUANTILES: Json = _object({"median": _NUMBER_OR_NONE, "p95": _NUMBER_OR_NONE})
_SUMS: dict[str, Json] = {
    "requests": _COUNT,
    "completed": _COUNT,
    "failed": _COUNT,
    "cancelled": _COUNT,
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "cached_input_tokens": _COUNT,
    "reasoning_tokens": _COUNT,
    "cost": NUMBER,
    "latency_ms": _QUANTILES,
    "ttft_ms": _QUANTILES,
}
_MODEL: dict[str, Json] = {
    "model": STRING,
    "creators": _NAMES,
    "providers": _NAMES,
    "tiers": _NAMES,
}

SCANNED: dict[str, Json] = {
    "ScannerEntry": _object(_ENTRY),
    "ScannerRequests": _list(
        "ScannerEntry", page_size=_COUNT, has_more=BOOLEAN, next=_TEXT_OR_NONE
    ),
    "ScannerRequest": _object(
        {**_ENTRY, "attempts": {"type": "array", "items": _object(_ATTEMPT)}}
    ),
    "ScannerStatistics": _object(
        {
            "object": {"const": "scanner.statistics"},
            "window": {"enum": ["24h", "30d"]},
            "since": _MOMENT,
            "as_of": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "What was in the ledger by then is counted; null: nothing yet.",
            },
            **_SUMS,
            "active_models": _COUNT,
            "active_providers": _COUNT,
            "models": {"type": "array", "items": _object({**_MODEL, **_SUMS})},
        }
    ),
    "ScannerModel": _object({**_MODEL, "requests": _COUNT, "last_used_at": _MOMENT}),
    "ScannerModels": _list("ScannerModel"),
}
