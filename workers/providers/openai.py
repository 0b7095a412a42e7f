"""Any OpenAI-compatible upstream: POST {base}/chat/completions and its like, with a bearer key."""

from collections.abc import Mapping
from typing import Any, ClassVar

import httpx
import msgspec

from shared.catalog import TIER_OF_TYPE, Provider, Tier
from workers.providers.http.prepared import Endpoint

PATHS = {
    "chat.completions": "/chat/completions",
    "embeddings": "/embeddings",
    "rerank": "/rerank",
}
"""By the endpoint's name in a job's header."""

_encode = msgspec.json.Encoder().encode


class OpenAIProvider:
    """Others of the family override `enforce` and `extra_headers`."""

    extra_headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()

    def __init__(self, name: str, settings: Provider, *, base_url: str, api_key: str) -> None:
        self.name = name
        self.settings = settings
        self.tier: Tier = TIER_OF_TYPE[settings.type]
        headers = [
            (b"authorization", b"Bearer " + api_key.encode()),
            (b"content-type", b"application/json"),
            (b"accept-encoding", b"identity"),  # what was sent is hashed and relayed as it is
            (b"user-agent", b"ollm-gateway"),
            *self.extra_headers,
        ]
        self._endpoints = {
            name: Endpoint(httpx.URL(base_url.rstrip("/") + path), headers)
            for name, path in PATHS.items()
        }

    def request(
        self,
        endpoint: str,
        document: Mapping[str, Any],
        *,
        row_id: str,
        timeouts: Mapping[str, float | None],
    ) -> httpx.Request:
        body = _encode(self.enforce(document))
        return self._endpoints[endpoint].request(body, row_id=row_id, timeouts=timeouts)

    def enforce(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """The document as it is sent: what the provider insists on is written last."""
        return document
