"""What management routes answer."""

from typing import Any, Literal

from api.schemas.errors import answer, refusals
from api.schemas.terms import BOOLEAN, NUMBER, OBJECT, STRING, Json

Who = Literal["master", "key"]
"""Names a security scheme of the OpenAPI document, too."""

MAYBE_STRING: Json = {"type": ["string", "null"]}
MAYBE_NUMBER: Json = {"type": ["number", "null"]}
MAYBE_INTEGER: Json = {"type": ["integer", "null"]}
COUNTER: Json = {"type": "integer", "minimum": 0}
MOMENT: Json = {**STRING, "format": "date-time"}
MAYBE_MOMENT: Json = {"type": ["string", "null"], "format": "date-time"}
STRINGS: Json = {"type": "array", "items": STRING}
ALWAYS = ("400", "401", "422", "500", "503")


def _object(properties: Json) -> Json:
    """Every member is always there."""
    return {"type": "object", "required": list(properties), "properties": properties}


_LIMITS = _object(
    {
        "requests_per_minute": MAYBE_INTEGER,
        "tokens_per_minute": MAYBE_INTEGER,
        "concurrent": MAYBE_INTEGER,
    }
)
_BUDGET: Json = {
    "budget_id": MAYBE_STRING,
    "budget_started_at": MAYBE_MOMENT,
    "next_budget_reset_at": MAYBE_MOMENT,
}
_KEY: Json = {
    "id": STRING,
    "key_name": MAYBE_STRING,
    "user_id": MAYBE_STRING,
    "created_at": MOMENT,
    "expires_at": MAYBE_MOMENT,
    "is_active": BOOLEAN,
    "metadata": OBJECT,
    "key_prefix": {**STRING, "description": "The key without its secret."},
    "exclude_from_budget": {"const": False},
    "workspace_id": {**STRING, "format": "uuid", "description": "The tenant, as a UUID."},
    "tenant": STRING,
    "public_id": {**STRING, "description": "Names the key in spend rows."},
    "scopes": STRINGS,
    "best_lane": {"enum": ["priority", "default", "flex", "batch"]},
    "allowed_models": {"type": ["array", "null"], "items": STRING},
    "user_field": {"enum": ["attribute", "bill"]},
    "limits": _LIMITS,
    "ip_allow_list": STRINGS,
    "attestation": {
        "enum": ["record", "require", None],
        "description": "Of confidential models; null: as they are set to.",
    },
    "previous_valid_until": {
        **MAYBE_MOMENT,
        "description": "Until when the secret before the last rotation works too.",
    },
    **_BUDGET,
}
_MONEY: Json = {
    "spend": {**NUMBER, "description": "US dollars."},
    "reserved": {**NUMBER, "description": "Held for calls that run."},
}
_MAYBE_MONEY: Json = {
    **_MONEY,
    "spend": {**MAYBE_NUMBER, "description": "US dollars; null while nobody knows."},
}
KEY: Json = _object({**_KEY, "last_used_at": MAYBE_MOMENT, **_MAYBE_MONEY})
NEW_KEY: Json = _object({**_KEY, "key": {**STRING, "description": "Shown this once."}})

USER: Json = _object(
    {
        "user_id": STRING,
        "alias": MAYBE_STRING,
        **_MONEY,
        **_BUDGET,
        "blocked": BOOLEAN,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "metadata": OBJECT,
        "reserved_requests": COUNTER,
        "reserved_tokens": COUNTER,
        "current_requests": {**COUNTER, "description": "Against a limit of a budget's."},
        "current_tokens": COUNTER,
        "tenant": STRING,
        "limits": _LIMITS,
    }
)

BUDGET: Json = _object(
    {
        "budget_id": STRING,
        "max_budget": MAYBE_NUMBER,
        "budget_duration_sec": MAYBE_INTEGER,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "tenant": STRING,
        "soft_budget": {**MAYBE_NUMBER, "description": "From here on answers carry a warning."},
    }
)

BUDGET_RESET: Json = _object(
    {
        "user_id": STRING,
        "key_id": {**MAYBE_STRING, "description": "A key's public id; null: the user's own."},
        "budget_id": STRING,
        "previous_spend": NUMBER,
        "reset_at": MOMENT,
        "next_reset_at": MAYBE_MOMENT,
    }
)

_RATES: Json = {
    "input_price_per_million": NUMBER,
    "output_price_per_million": NUMBER,
    "cache_read_price_per_million": MAYBE_NUMBER,
    "cache_write_price_per_million": MAYBE_NUMBER,
}
PRICE: Json = _object(
    {
        "model_key": STRING,
        "effective_at": MOMENT,
        **_RATES,
        "pricing_tiers": {
            "type": "array",
            "items": _object({"min_input_tokens": COUNTER, **_RATES}),
        },
        "unit": {"const": "tokens"},
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }
)

AUDIT_ENTRY: Json = _object(
    {
        "id": STRING,
        "at": MOMENT,
        "actor": STRING,
        "action": STRING,
        "object_type": STRING,
        "object_id": STRING,
        "before": {"type": ["object", "null"]},
        "after": {"type": ["object", "null"]},
        "address": MAYBE_STRING,
        "request_id": MAYBE_STRING,
    }
)

MANAGED: dict[str, Json] = {
    "Key": KEY,
    "NewKey": NEW_KEY,
    "User": USER,
    "Budget": BUDGET,
    "BudgetReset": BUDGET_RESET,
    "Price": PRICE,
    "AuditEntry": AUDIT_ENTRY,
}
MANAGED |= {
    f"{name}List": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    for name in ("Key", "User", "Budget", "BudgetReset", "Price", "AuditEntry")
}


def documented(
    name: str, schema: str | None = None, *more: str, who: Who = "master"
) -> dict[str, Any]:
    """Of a route: its operation id, its answer (204 without one), its refusals beside the usual
    ones, and whose key it takes."""
    ok: dict[int | str, Json] = (
        {204: {"description": "Done."}} if schema is None else {200: answer("Done.", schema)}
    )
    return {
        "operation_id": name,
        "status_code": 204 if schema is None else 200,
        "responses": {**ok, **refusals(*ALWAYS, *more)},
        "openapi_extra": {"security": [{who: []}]},
    }
