"""The OpenAPI document: FastAPI's own for its routes, and by hand what raw ASGI routes do.

The hand-written part repeats the checks of `shared.dialects.chat`; a test compares the two.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shared.dialects.chat import CACHE_MODES, RESPONSE_FORMATS, SERVICE_TIERS
from shared.dialects.chat_messages import ROLES

CHAT_PATH = "/v1/chat/completions"
DESCRIPTION = "A self-hosted AI gateway whose every inference is a job on a queue."

Json = dict[str, Any]

STRING: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}
OBJECT: Json = {"type": "object"}
INT32: Json = {"type": "integer", "format": "int32"}
COUNT: Json = {**INT32, "minimum": 0}

ERROR: Json = {
    "type": "object",
    "required": ["error", "detail"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": STRING,
                "type": STRING,
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        },
        "detail": {
            "description": "The message, or the list of what is wrong with the body.",
            "oneOf": [STRING, {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}}],
        },
    },
}

FAULT: Json = {
    "type": "object",
    "required": ["loc", "msg", "type"],
    "properties": {
        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        "msg": STRING,
        "type": STRING,
    },
}

MESSAGE: Json = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "enum": sorted(ROLES)},
        "content": {
            "description": "Text, or parts of it: text, image_url and whatever the model takes.",
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
    "user": STRING,
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
    "ollm::tags": {
        "description": "Labels kept with the spend row.",
        "oneOf": [
            {"type": "object", "additionalProperties": STRING},
            {"type": "array", "items": {**STRING, "pattern": "^[^=]+="}},
        ],
    },
    "ollm::cache_options": {
        "type": "object",
        "description": "Only `off` is supported.",
        "properties": {
            "enabled": {**STRING, "enum": list(CACHE_MODES), "default": "off"},
            "max_age_s": {"type": ["integer", "null"], "minimum": 0},
        },
    },
    "ollm::dryrun": {**BOOLEAN, "const": False, "description": "Not supported."},
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
    },
    "additionalProperties": True,
}


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
            "usage": {"$ref": "#/components/schemas/Usage"},
        },
        "additionalProperties": True,
    }


SCHEMAS: dict[str, Json] = {
    "Error": ERROR,
    "Fault": FAULT,
    "Usage": USAGE,
    "ChatRequest": CHAT_REQUEST,
    "ChatAnswer": _answer("chat.completion", {"message": OBJECT}),
    "ChatChunk": _answer("chat.completion.chunk", {"delta": OBJECT}),
}

ERRORS: dict[str, str] = {
    "400": "The body is wrong.",
    "401": "No key, or not one of ours.",
    "403": "Not allowed.",
    "404": "No such model.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "Too many requests, here or at the provider.",
    "500": "A bug.",
    "502": "The provider failed, after retries and fallback.",
    "503": "The queue is full, a store is away, or the process is draining.",
    "504": "The provider, or the queue, was too slow.",
}


def _schema(name: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


CHAT: Json = {
    "tags": ["inference"],
    "summary": "Create a chat completion",
    "operationId": "create_chat_completion",
    "security": [{"key": []}],
    "requestBody": {
        "required": True,
        "content": {"application/json": _schema("ChatRequest")},
    },
    "responses": {
        "200": {
            "description": "The answer; with `stream`, chunks of it and then `data: [DONE]`.",
            "content": {
                "application/json": _schema("ChatAnswer"),
                "text/event-stream": _schema("ChatChunk"),
            },
        },
        **{
            status: {"description": said, "content": {"application/json": _schema("Error")}}
            for status, said in ERRORS.items()
        },
    },
}


def document(app: FastAPI) -> Callable[[], Json]:
    """What replaces `app.openapi`: made once, at the first request for it."""
    made: Json = {}

    def openapi() -> Json:
        if not made:
            made.update(_make(app))
        return made

    return openapi


def _make(app: FastAPI) -> Json:
    whole = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
    )
    whole["paths"] = {CHAT_PATH: {"post": CHAT}, **whole["paths"]}
    components = whole.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **SCHEMAS}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return whole
