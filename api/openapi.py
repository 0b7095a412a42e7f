"""The OpenAPI document: FastAPI's own for its routes, and by hand what raw ASGI routes do."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.schemas import SCHEMAS, Json

DESCRIPTION = "A self-hosted AI gateway whose every inference is a job on a queue."

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


def _operation(summary: str, name: str, request: str, answer: str, **content: Json) -> Json:
    """A POST with a JSON body. `content` is what else a 200 may hold, by its media type."""
    return {
        "tags": ["inference"],
        "summary": summary,
        "operationId": name,
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": {"application/json": _schema(request)}},
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {"application/json": _schema(answer), **content},
            },
            **{
                status: {"description": said, "content": {"application/json": _schema("Error")}}
                for status, said in ERRORS.items()
            },
        },
    }


PATHS: dict[str, Json] = {
    "/v1/chat/completions": _operation(
        "Create a chat completion; with `stream`, as chunks and then `data: [DONE]`",
        "create_chat_completion",
        "ChatRequest",
        "ChatAnswer",
        **{"text/event-stream": _schema("ChatChunk")},
    ),
    "/v1/embeddings": _operation(
        "Create embeddings", "create_embeddings", "EmbeddingsRequest", "EmbeddingsAnswer"
    ),
    "/v1/rerank": _operation("Rank documents", "rerank", "RerankRequest", "RerankAnswer"),
}
"""What FastAPI does not know of."""


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
    raw = {path: {"post": operation} for path, operation in PATHS.items()}
    whole["paths"] = {**raw, **whole["paths"]}
    components = whole.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **SCHEMAS}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return whole
