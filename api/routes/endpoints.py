"""The inference endpoints: how each reads its body, and what it asks of a model."""

from collections.abc import Mapping

from api.routes.inference import Endpoint
from shared.catalog import EMBEDDING_MODEL_NAME_PREFIX, Catalog, Target
from shared.dialects import chat, embeddings, rerank
from shared.dialects.faults import unsupported
from shared.dialects.request import InferenceRequest


def _parse_chat(body: bytes, catalog: Catalog) -> InferenceRequest:
    return chat.parse(body, accept_stop_string=catalog.document.compat.accept_stop_string)


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


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint("chat.completions", _parse_chat, has_functions=True),
    "/v1/embeddings": Endpoint(
        "embeddings", _parse_embeddings, preferred_prefix=EMBEDDING_MODEL_NAME_PREFIX
    ),
    "/v1/rerank": Endpoint("rerank", _parse_rerank, pin=_first_openai_provider),
}
"""By path."""
