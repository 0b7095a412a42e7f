"""Phala and RedPill: confidential models behind an OpenAI-compatible proxy."""

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from workers.providers.openai import OpenAIProvider

ROUTING_FIELDS = ("models", "route", "plugins", "transforms")
"""Members with which a request could ask the marketplace for another model or another route."""


class PhalaProvider(OpenAIProvider):
    @override
    def enforce(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if any(field in document for field in ROUTING_FIELDS):
            return {name: value for name, value in document.items() if name not in ROUTING_FIELDS}
        return document
