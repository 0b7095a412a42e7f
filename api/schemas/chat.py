"""A chat completion: what is asked and what is answered."""

from api.schemas.errors import ERROR
from api.schemas.terms import (
    BOOLEAN,
    CACHE_OPTIONS,
    COUNT,
    DRYRUN,
    INT32,
    NUMBER,
    OBJECT,
    STRING,
    TAGS,
    USER,
    Json,
)
from shared.dialects.chat import RESPONSE_FORMATS, SERVICE_TIERS
from shared.dialects.chat_messages import ROLES

MESSAGE: Json = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "enum": sorted(ROLES)},
        "content": {
            "description": "Text, or parts of it: text, image_url and whatever the model takes. For a"
            " function's template a part of type text has ollm::arguments instead of text.",
            "oneOf": [
                STRING,
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type"],
                        "properties": {"type": STRING},
                    },
                },
                {"type": "null"},
            ],
        },
        "name": STRING,
        "tool_call_id": STRING,
        "tool_calls": {"type": "array", "items": OBJECT},
    },
    "additionalProperties": True,
}

CHAT_FIELDS: dict[str, Json] = {
    "model": {
        **STRING,
        "description": "A model, `<provider>:<model>`, or `ollm::model_name::<m>`.",
    },
    "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
    "temperature": NUMBER,
    "top_p": NUMBER,
    "max_tokens": {**COUNT, "description": "With `max_completion_tokens`, the smaller is used."},
    "max_completion_tokens": COUNT,
    "n": {**INT32, "const": 1, "default": 1},
    "stop": {"type": "array", "items": STRING},
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "seed": INT32,
    "reasoning_effort": STRING,
    "verbosity": STRING,
    "user": USER,
    "service_tier": {**STRING, "enum": list(SERVICE_TIERS), "default": "auto"},
    "stream": {**BOOLEAN, "default": False},
    "stream_options": {"type": "object", "properties": {"include_usage": BOOLEAN}},
    "tools": {
        "type": "array",
        "items": {"type": "object", "required": ["type"], "properties": {"type": STRING}},
    },
    "tool_choice": {"oneOf": [STRING, OBJECT]},
    "parallel_tool_calls": BOOLEAN,
    "response_format": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {**STRING, "enum": list(RESPONSE_FORMATS)},
            "json_schema": OBJECT,
        },
    },
    "ollm::tags": TAGS,
    "ollm::cache_options": CACHE_OPTIONS,
    "ollm::dryrun": DRYRUN,
    "ollm::resumable": {**BOOLEAN, "const": False, "description": "Not supported."},
    "ollm::variant_name": {**STRING, "description": "Pins one of the model's providers."},
    "ollm::episode_id": {**STRING, "format": "uuid"},
    "ollm::deny_unknown_fields": {**BOOLEAN, "default": False},
    "ollm::include_raw_usage": {**BOOLEAN, "default": False},
    "ollm::include_raw_response": {**BOOLEAN, "default": False},
}

CHAT_REQUEST: Json = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": CHAT_FIELDS,
    "additionalProperties": True,
}

USAGE: Json = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "cost": {**NUMBER, "description": "US dollars; where the operator wants it told."},
    },
    "additionalProperties": True,
}

USAGE_REF: Json = {"$ref": "#/components/schemas/Usage"}


def _answer(kind: str, choice: Json) -> Json:
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "id": STRING,
            "object": {"const": kind},
            "created": {"type": "integer"},
            "model": {**STRING, "description": "As it was asked for."},
            "episode_id": {**STRING, "format": "uuid"},
            "system_fingerprint": {"type": ["string", "null"]},
            "service_tier": {"type": ["string", "null"]},
            "choices": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "index": {"type": "integer"},
                        "finish_reason": {"type": ["string", "null"]},
                        **choice,
                    },
                },
            },
            "usage": USAGE_REF,
        },
        "additionalProperties": True,
    }


CHAT_ANSWER = _answer("chat.completion", {"message": OBJECT})
_CHUNK = _answer("chat.completion.chunk", {"delta": OBJECT})
CHAT_CHUNK: Json = {
    **_CHUNK,
    # Every chunk but the one at the end says null, where usage was asked for.
    "properties": {**_CHUNK["properties"], "usage": {"oneOf": [USAGE_REF, {"type": "null"}]}},
}

CHAT_EVENT: Json = {
    "type": "object",
    "description": "One event of the stream. Its last is `[DONE]`, or an error where it was cut.",
    "required": ["data"],
    "properties": {
        "data": {
            "anyOf": [
                {"const": "[DONE]"},
                {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/ChatChunk"},
                            {
                                "type": "object",
                                "required": ["error"],
                                "properties": {"error": ERROR["properties"]["error"]},
                            },
                        ]
                    },
                },
            ]
        }
    },
}
