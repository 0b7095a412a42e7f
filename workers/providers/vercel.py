"""Vercel AI Gateway: zero data retention, asked for on every call whatever the client says."""

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from workers.providers.openai import OpenAIProvider

ENFORCED = {"zeroDataRetention": True, "disallowPromptTraining": True}
CLIENT_MAY_NARROW = frozenset({"only", "order", "sort", "tags", "user", "caching"})
"""Gateway options a client may set: each only narrows. Credentials of its own are not among them,
nor is `models`, which names fallback models: the gateway never substitutes another model."""


class VercelProvider(OpenAIProvider):
    @override
    def enforce(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = document.get("providerOptions")
        options = dict(asked) if isinstance(asked, dict) else {}
        gateway = options.get("gateway")
        narrowed = gateway if isinstance(gateway, dict) else {}
        options["gateway"] = {
            **{name: value for name, value in narrowed.items() if name in CLIENT_MAY_NARROW},
            **ENFORCED,
        }
        sent = {name: value for name, value in document.items() if name != "models"}
        sent["providerOptions"] = options
        return sent
