"""What is told of usage: entries, and their sums."""

from api.schemas.errors import answer
from api.schemas.terms import NUMBER, STRING, Json

NEXT = "x-next-cursor"
"""Header of a page that another one follows."""

_COUNT: Json = {"type": "integer", "minimum": 0}
_TEXT_OR_NONE: Json = {"type": ["string", "null"]}
_COUNT_OR_NONE: Json = {"type": ["integer", "null"], "minimum": 0}

_ENTRY: dict[str, Json] = {
    "id": {**STRING, "description": "The request's `x-request-id`."},
    "user_id": _TEXT_OR_NONE,
    "api_key_id": {
        **_TEXT_OR_NONE,
        "description": "As `/v1/keys` has it; null once it is deleted.",
    },
    "timestamp": {**STRING, "format": "date-time"},
    "model": STRING,
    "provider": _TEXT_OR_NONE,
    "endpoint": STRING,
    "prompt_tokens": _COUNT_OR_NONE,
    "completion_tokens": _COUNT_OR_NONE,
    "total_tokens": _COUNT_OR_NONE,
    "cost": {"type": ["number", "null"], "description": "US dollars, exactly."},
    "status": {"enum": ["success", "error"]},
    "error_message": _TEXT_OR_NONE,
    "api_key_public_id": _TEXT_OR_NONE,
}

_LINE: dict[str, Json] = {
    "group": STRING,
    "requests": _COUNT,
    "errors": _COUNT,
    "attempts": _COUNT,
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "cached_input_tokens": _COUNT,
    "reasoning_tokens": _COUNT,
    "cost": NUMBER,
}

USAGE_ENTRY: Json = {"type": "object", "required": list(_ENTRY), "properties": _ENTRY}
USAGE_ENTRIES: Json = {"type": "array", "items": {"$ref": "#/components/schemas/UsageEntry"}}
USAGE_SUMMARY: Json = {
    "type": "object",
    "required": ["object", "group_by", "data"],
    "properties": {
        "object": {"const": "list"},
        "group_by": STRING,
        "data": {
            "type": "array",
            "items": {"type": "object", "required": list(_LINE), "properties": _LINE},
        },
    },
}

_FILE: Json = {"text/csv": {"schema": STRING}}


def _told(description: str, schema: str) -> Json:
    told = answer(description, schema)
    return {**told, "content": {**told["content"], **_FILE}}


ENTRIES: Json = {
    **_told("Entries, newest first.", "UsageEntries"),
    "headers": {NEXT: {"schema": STRING, "description": "Where the next page begins."}},
}
SUMMARY: Json = _told("Sums.", "UsageSummary")
