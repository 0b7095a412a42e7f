"""Catalogs for tests, written as shortly as a test wants to think of them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.catalog import Catalog
from shared.document import Document


def a_catalog(
    providers: Mapping[str, Mapping[str, object]], models: Mapping[str, Any], **members: object
) -> Catalog:
    """Providers have an address and a key, `KEY`, unless they say otherwise. A model's providers
    may be names alone: there it has its own name."""
    document = {
        "providers": {
            name: {"base_url": f"http://{name}.invalid/v1", "api_key_env": "KEY", **settings}
            for name, settings in providers.items()
        },
        "models": {name: _model(name, model) for name, model in models.items()},
        **members,
    }
    return Catalog(msgspec.convert(document, Document))


def _model(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    routes = [
        {"provider": one, "upstream_model": name} if isinstance(one, str) else one
        for one in model["providers"]
    ]
    return {**model, "providers": routes}
