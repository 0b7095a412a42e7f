"""Which models this deployment can serve: those whose provider is on and has its key."""

from collections.abc import Callable
from typing import Protocol

from shared.document import Document, Model, Provider


class Secret(Protocol):
    def get_secret_value(self) -> str: ...


Secrets = Callable[[str | None], Secret | None]
"""The value of an environment variable that the catalog names, if it is set."""


class Availability:
    """Asked anew each time: the catalog may switch a provider off at any moment."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def is_on(self, provider: Provider) -> bool:
        """Enabled, with an address, and with its key where it needs one."""
        has_address = bool(provider.base_url) or self._secrets(provider.base_url_env) is not None
        needs_key = provider.api_key_env is not None
        has_key = not needs_key or self._secrets(provider.api_key_env) is not None
        return provider.enabled and has_address and has_key

    def serves(self, document: Document, model: Model) -> bool:
        """Whether at least one of an active model's providers is on."""
        return model.active and any(
            self.is_on(document.providers[route.provider]) for route in model.providers
        )

    def models(self, document: Document) -> dict[str, Model]:
        """The models that can be served, by name, sorted."""
        on = {name for name, provider in document.providers.items() if self.is_on(provider)}
        return {
            name: model
            for name, model in sorted(document.models.items())
            if model.active and any(route.provider in on for route in model.providers)
        }
