"""The inference endpoints: how each reads its body, and what it asks of a model."""

from collections.abc import Mapping

from api.routes.inference import Endpoint, Parse
from shared.catalog import EMBEDDING_MODEL_NAME_PREFIX, Catalog, Target
from shared.dialects import chat, embeddings, rerank
from shared.dialects.faults import unsupported
from shared.dialects.request import InferenceRequest


def _parse_chat(body: bytes, catalog: Catalog) -> InferenceRequest:
    compat = catalog.document.compat
    return chat.parse(
        body,
        accept_stop_string=compat.accept_stop_string,
        always_usage=compat.always_stream_usage,
    )


def _parse_embeddings(body: bytes, _catalog: Catalog) -> InferenceRequest:
    return embeddings.parse(body)


def _parse_rerank(body: bytes, _catalog: Catalog) -> InferenceRequest:
    return rerank.parse(body)


def _first_openai_provider(catalog: Catalog, target: Target) -> str:
    """For endpoints that other types of provider do not have: the first, and no fallback."""
    first = target.pinned_provider or target.model.providers[0].provider
    if catalog.document.providers[first].type != "openai":
        raise unsupported("model", "is served by a provider without this endpoint")
    return first


RERANK = Endpoint("rerank", pin=_first_openai_provider)

DOCUMENTS: Mapping[str, tuple[Endpoint, Parse]] = {
    "/v1/chat/completions": (
        Endpoint("chat.completions", has_functions=True, has_output_cap=True),
        _parse_chat,
    ),
    "/v1/embeddings": (
        Endpoint("embeddings", preferred_prefix=EMBEDDING_MODEL_NAME_PREFIX),
        _parse_embeddings,
    ),
    "/v1/rerank": (RERANK, _parse_rerank),
    "/v2/rerank": (RERANK, _parse_rerank),  # as Cohere's later clients call it
}
"""Endpoints whose body is a JSON document, by path."""

FORMS: Mapping[str, Endpoint] = {
    "/v1/audio/transcriptions": Endpoint("audio.transcriptions", pin=_first_openai_provider),
}
"""Endpoints whose body is a form with a file, by path."""
