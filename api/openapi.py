"""The OpenAPI document: FastAPI's own for its routes, and by hand what raw ASGI routes do."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.schemas.components import SCHEMAS
from api.schemas.errors import ERRORS, refusals, schema_of
from api.schemas.links import FROM_CHAT
from api.schemas.terms import Json

DESCRIPTION = "A self-hosted AI gateway whose every inference is a job on a queue."


def _operation(
    summary: str, name: str, request: str, answer: str, links: Json | None = None, **content: Json
) -> Json:
    """A POST with a JSON body. `content` is what else a 200 may hold, by its media type."""
    return {
        "tags": ["inference"],
        "summary": summary,
        "operationId": name,
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": {"application/json": schema_of(request)}},
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {"application/json": schema_of(answer), **content},
                "links": links or {},
            },
            **refusals(*ERRORS),
        },
    }


PATHS: dict[str, Json] = {
    "/v1/chat/completions": _operation(
        "Create a chat completion; with `stream`, as chunks and then `data: [DONE]`",
        "create_chat_completion",
        "ChatRequest",
        "ChatAnswer",
        FROM_CHAT,
        **{"text/event-stream": schema_of("ChatEvent")},
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
