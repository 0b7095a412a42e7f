"""The contract of a provider: how a document becomes one upstream call.

A provider neither retries nor parses answers; it turns a document into a request
and says which timeouts apply. What a provider enforces (zero retention, canonical names) it writes
last, over whatever the client sent.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import httpx

from shared.document import Provider, Tier


class UpstreamProvider(Protocol):
    """Where one configured provider can be reached, and what it insists on."""

    @property
    def name(self) -> str:
        """Its name in the catalog."""
        ...

    @property
    def settings(self) -> Provider: ...

    @property
    def tier(self) -> Tier: ...

    def request(
        self,
        endpoint: str,
        document: Mapping[str, Any],
        *,
        row_id: str,
        timeouts: Mapping[str, float | None],
    ) -> httpx.Request:
        """The call for one attempt. `document` is the upstream body, model already renamed;
        `endpoint` is named as in a job's header.

        `row_id` travels as `x-client-request-id`, so that a provider's own log can be matched with
        our spend row. `timeouts` are httpx's `connect`, `read`, `write`, `pool`, in seconds.
        """
        ...

    def upload(
        self,
        endpoint: str,
        body: httpx.AsyncByteStream,
        *,
        content_type: str,
        row_id: str,
        timeouts: Mapping[str, float | None],
    ) -> httpx.Request:
        """As `request`, for a body that is sent while it comes in."""
        ...
