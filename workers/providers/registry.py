"""Builds the providers of a catalog that are switched on: enabled, and their key is present."""

from collections.abc import Callable, Mapping

import httpx
import structlog
from pydantic import SecretStr

from shared.catalog import Catalog
from shared.document import Provider
from workers.providers.base import UpstreamProvider
from workers.providers.near import NearProvider
from workers.providers.openai import OpenAIProvider
from workers.providers.phala import PhalaProvider
from workers.providers.vercel import VercelProvider

log = structlog.get_logger()

TYPES: Mapping[str, type[OpenAIProvider]] = {
    "openai": OpenAIProvider,
    "near": NearProvider,
    "phala": PhalaProvider,
    "vercel": VercelProvider,
}


class Credentials:
    """Addresses and keys that the catalog only names; handed down by the entry point."""

    def __init__(self, lookup: Callable[[str | None], SecretStr | None]) -> None:
        """`lookup` gives the value of an environment variable, if it is set."""
        self._lookup = lookup

    def base_url(self, provider: Provider) -> str:
        given = self._lookup(provider.base_url_env)
        return (given.get_secret_value() if given else provider.base_url) + provider.base_path

    def evidence_url(self, provider: Provider) -> str:
        """Of a simulated one; else empty."""
        given = self._lookup(provider.evidence_url_env)
        return given.get_secret_value().rstrip("/") if given else ""

    def api_key(self, provider: Provider) -> str | None:
        key = self._lookup(provider.api_key_env)
        return key.get_secret_value() if key else None


def build(catalog: Catalog, credentials: Credentials) -> dict[str, UpstreamProvider]:
    """The providers that can be called now, by their names in the catalog."""
    providers: dict[str, UpstreamProvider] = {}
    for name, settings in catalog.document.providers.items():
        base_url, key = credentials.base_url(settings), credentials.api_key(settings)
        has_key = key is not None or settings.api_key_env is None
        if settings.enabled and base_url and has_key:
            try:
                provider = TYPES[settings.type](name, settings, base_url=base_url, api_key=key)
            except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError) as error:
                # The error's own words may hold the key. The other providers must work on.
                log.error(
                    "A provider's address or key cannot be sent in a request",
                    action="provider_unusable",
                    provider=name,
                    error=type(error).__name__,
                )
            else:
                providers[name] = provider
    return providers
