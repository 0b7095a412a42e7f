"""Embeddings and rerank: what is asked and what is answered."""

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
from shared.dialects.embeddings import ENCODINGS, MAX_INPUTS
from shared.dialects.rerank import MAX_DOCUMENTS

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
        "user": USER,
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
        "user": USER,
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
