"""JSON schemas of what the raw ASGI routes take and answer, for the OpenAPI document.

They repeat the checks of `shared.dialects`; a test compares the two.
"""

from typing import Any

from shared.dialects.chat import RESPONSE_FORMATS, SERVICE_TIERS
from shared.dialects.chat_messages import ROLES
from shared.dialects.embeddings import ENCODINGS, MAX_INPUTS
from shared.dialects.request import CACHE_MODES
from shared.dialects.rerank import MAX_DOCUMENTS

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

TAGS: Json = {
    "description": "Labels kept with the spend row.",
    "oneOf": [
        {"type": "object", "additionalProperties": STRING},
        {"type": "array", "items": {**STRING, "pattern": "^[^=]+="}},
    ],
}

CACHE_OPTIONS: Json = {
    "type": "object",
    "description": "Only `off` is supported.",
    "properties": {
        "enabled": {**STRING, "enum": list(CACHE_MODES), "default": "off"},
        "max_age_s": {"type": ["integer", "null"], "minimum": 0},
    },
}

DRYRUN: Json = {
    **BOOLEAN,
    "default": False,
    "description": "The provider is called, but nothing is billed and nothing is kept.",
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


TOKENS: Json = {"type": "array", "minItems": 1, "items": COUNT}
TEXT: Json = {**STRING, "minLength": 1}

EMBEDDINGS_REQUEST: Json = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {
            **STRING,
            "description": "Best as `ollm::embedding_model_name::<m>`; other forms get a warning.",
        },
        "input": {
            "anyOf": [
                TEXT,
                {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": TEXT},
                TOKENS,
                {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": TOKENS},
            ],
        },
        "dimensions": {**INT32, "minimum": 1},
        "encoding_format": {**STRING, "enum": list(ENCODINGS), "default": "float"},
        "user": STRING,
        "ollm::tags": TAGS,
        "ollm::cache_options": CACHE_OPTIONS,
        "ollm::dryrun": DRYRUN,
        "ollm::include_raw_response": {**BOOLEAN, "default": False},
        "ollm::deny_unknown_fields": {**BOOLEAN, "default": False},
    },
    "additionalProperties": True,
}

EMBEDDINGS_ANSWER: Json = {
    "type": "object",
    "required": ["object", "model", "data", "usage"],
    "properties": {
        "object": {"const": "list"},
        "model": {**STRING, "description": "As it was asked for."},
        "data": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "embedding": {"oneOf": [{"type": "array", "items": NUMBER}, STRING]},
                },
            },
        },
        "usage": {
            "type": "object",
            "required": ["prompt_tokens", "total_tokens"],
            "properties": {"prompt_tokens": COUNT, "total_tokens": COUNT},
        },
    },
    "additionalProperties": True,
}

RERANK_REQUEST: Json = {
    "type": "object",
    "required": ["model", "query", "documents"],
    "properties": {
        "model": STRING,
        "query": TEXT,
        "documents": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_DOCUMENTS,
            "items": {
                "oneOf": [
                    STRING,
                    {"type": "object", "required": ["text"], "properties": {"text": STRING}},
                ]
            },
        },
        "top_n": {**INT32, "minimum": 1},
        "return_documents": BOOLEAN,
        "max_tokens_per_doc": INT32,
        "ollm::tags": TAGS,
        "ollm::dryrun": DRYRUN,
        "ollm::deny_unknown_fields": {**BOOLEAN, "default": False},
    },
    "additionalProperties": True,
}

RERANK_ANSWER: Json = {
    "type": "object",
    "required": ["id", "results", "meta"],
    "properties": {
        "id": STRING,
        "results": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "relevance_score": NUMBER,
                    "document": {"oneOf": [OBJECT, STRING, {"type": "null"}]},
                },
            },
        },
        "meta": {"type": ["object", "null"]},
    },
    "additionalProperties": True,
}

MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "is_active", "model_info", "pricing"],
    "properties": {
        "id": STRING,
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": STRING,
        "is_active": BOOLEAN,
        "input_cost_per_token": NUMBER,
        "output_cost_per_token": NUMBER,
        "max_input_tokens": {"type": ["integer", "null"]},
        "max_output_tokens": {"type": ["integer", "null"]},
        "input_modalities": {"type": "array", "items": STRING},
        "output_modalities": {"type": "array", "items": STRING},
        "display_name": STRING,
        "model_info": {
            "type": "object",
            "properties": {
                "tier": {"enum": ["TEE", "ZDR", None]},
                "providers": {"type": "array", "items": STRING},
                "description": STRING,
            },
        },
        "pricing": {
            "type": "object",
            "properties": {"input_price_per_million": NUMBER, "output_price_per_million": NUMBER},
        },
    },
}

MODELS: Json = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    },
}

HEALTH: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": STRING},
    "additionalProperties": True,
}

TIER_FILTERS: list[Json] = [
    {
        "name": name,
        "in": "query",
        "description": "`false` hides the models of the tier.",
        "schema": {**STRING, "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"},
    }
    for name in ("allow_tee", "allow_zdr")
]

SCHEMAS: dict[str, Json] = {
    "Error": ERROR,
    "Fault": FAULT,
    "Usage": USAGE,
    "ChatRequest": CHAT_REQUEST,
    "ChatAnswer": _answer("chat.completion", {"message": OBJECT}),
    "Model": MODEL,
    "Models": MODELS,
    "Health": HEALTH,
    "EmbeddingsRequest": EMBEDDINGS_REQUEST,
    "EmbeddingsAnswer": EMBEDDINGS_ANSWER,
    "RerankRequest": RERANK_REQUEST,
    "RerankAnswer": RERANK_ANSWER,
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


def schema_of(name: str) -> Json:
    """A media type's reference to one of SCHEMAS."""
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def answer(description: str, schema: str) -> Json:
    """A response with a JSON body."""
    return {"description": description, "content": {"application/json": schema_of(schema)}}


def refusals(*statuses: str) -> dict[int | str, Json]:
    """The responses of these statuses, all of them in the envelope."""
    return {status: answer(ERRORS[status], "Error") for status in statuses}
