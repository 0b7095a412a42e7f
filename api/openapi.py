"""The OpenAPI document: FastAPI's own for its routes, and by hand what raw ASGI routes do."""

from collections.abc import Callable, Mapping

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.schemas.components import SCHEMAS
from api.schemas.errors import INFERENCE_ERRORS, refusals, schema_of
from api.schemas.links import FROM_CHAT
from api.schemas.terms import STRING, Json

DESCRIPTION = "A self-hosted AI gateway whose every inference is a job on a queue."


JSON = "application/json"
FORM = "multipart/form-data"


def _operation(
    summary: str,
    name: str,
    request: str,
    answer: str,
    *,
    media: str = JSON,
    more: Mapping[str, Json] = {},
    links: Mapping[str, Json] = {},
) -> Json:
    """A POST. `more` is what else than JSON a 200 may hold, by its media type."""
    return {
        "tags": ["inference"],
        "summary": summary,
        "operationId": name,
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": {media: schema_of(request)}},
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {JSON: schema_of(answer), **more},
                "links": dict(links),
            },
            **refusals(*INFERENCE_ERRORS),
        },
    }


PATHS: dict[str, Json] = {
    "/v1/chat/completions": _operation(
        "Create a chat completion; with `stream`, as chunks and then `data: [DONE]`",
        "create_chat_completion",
        "ChatRequest",
        "ChatAnswer",
        more={"text/event-stream": schema_of("ChatEvent")},
        links=FROM_CHAT,
    ),
    "/v1/embeddings": _operation(
        "Create embeddings", "create_embeddings", "EmbeddingsRequest", "EmbeddingsAnswer"
    ),
    "/v1/rerank": _operation("Rank documents", "rerank", "RerankRequest", "RerankAnswer"),
    "/v2/rerank": _operation(
        "Rank documents, as Cohere's later clients ask",
        "rerank_v2",
        "RerankRequest",
        "RerankAnswer",
    ),
    "/v1/audio/transcriptions": _operation(
        "Transcribe an audio file, which is passed on while it comes in",
        "create_transcription",
        "TranscriptionRequest",
        "Transcription",
        media=FORM,
        more={"text/plain": {"schema": STRING}},
    ),
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
    bearer = {"type": "http", "scheme": "bearer"}
    master = {**bearer, "description": "GATEWAY_MASTER_KEY, and no other key."}
    components["securitySchemes"] = {"key": bearer, "master": master}
    return whole
