"""Any OpenAI-compatible upstream: POST {base}/chat/completions and its like, with a bearer key."""

from collections.abc import Mapping
from typing import Any, ClassVar

import httpx
import msgspec

from shared.document import TIER_OF_TYPE, Provider, Tier
from workers.providers.http.prepared import Endpoint

PATHS = {
    "chat.completions": "/chat/completions",
    "embeddings": "/embeddings",
    "rerank": "/rerank",
}
"""By the endpoint's name in a job's header."""
UPLOAD_PATHS = {"audio.transcriptions": "/audio/transcriptions"}
"""Of those that take a form with a file."""

_encode = msgspec.json.Encoder().encode


class OpenAIProvider:
    """Others of the family override `enforce` and `extra_headers`."""

    extra_headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()

    def __init__(
        self, name: str, settings: Provider, *, base_url: str, api_key: str | None
    ) -> None:
        """Without a key no credential is sent: some servers on one's own machines ask for none."""
        self.name = name
        self.settings = settings
        self.tier: Tier = TIER_OF_TYPE[settings.type]
        base = base_url.rstrip("/")
        self._headers = [
            *([] if api_key is None else [(b"authorization", b"Bearer " + api_key.encode())]),
            (b"accept-encoding", b"identity"),  # what was sent is hashed and relayed as it is
            (b"user-agent", b"ollm-gateway"),
            *self.extra_headers,
        ]
        headers = [*self._headers, (b"content-type", b"application/json")]
        self._endpoints = {
            name: Endpoint(httpx.URL(base + path), headers) for name, path in PATHS.items()
        }
        self._uploads = {name: httpx.URL(base + path) for name, path in UPLOAD_PATHS.items()}

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

    def upload(
        self,
        endpoint: str,
        body: httpx.AsyncByteStream,
        *,
        content_type: str,
        row_id: str,
        timeouts: Mapping[str, float | None],
    ) -> httpx.Request:
        url = self._uploads[endpoint]
        headers = [
            (b"Host", url.netloc),
            *self._headers,
            (b"content-type", content_type.encode()),
            (b"x-client-request-id", row_id.encode()),
            (b"Transfer-Encoding", b"chunked"),
        ]
        timeout = {"timeout": timeouts}
        return httpx.Request("POST", url, headers=headers, stream=body, extensions=timeout)

    def enforce(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """The document as it is sent: what the provider insists on is written last."""
        return document
