"""A function: one task under one name, answered by one of several variants.

Which variant a request gets is decided by its episode: the share of its weight over all episodes,
and always the same one for the same episode, without anything to remember.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from shared.prompt import rendered
from shared.template import TemplateInvalid, compiled
from shared.timeouts import Retries, Timeouts

DRAWS = 2**64
SAMPLING = (
    "temperature",
    "top_p",
    "max_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "reasoning_effort",
    "verbosity",
)
"""Fields of a variant that stand in for what a request leaves out."""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One way to do it: a model, and what is said to it beside the request."""

    model: str
    """A model of the catalog."""
    weight: float = 1.0
    """Its share, among those of its function. 0: only by name, or as a fallback."""
    system: str = ""
    """A system message, before those of the request."""
    system_template: str = ""
    """A template, for the request's system message."""
    user_template: str = ""
    """A template, for the request's user messages."""
    json_schema: str = ""
    """JSON text: what the answer must look like, where the request does not say."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    timeouts: Timeouts | None = None
    """None: the model's."""
    retries: Retries | None = None
    """None: those of the model's providers."""

    def applied(self, fields: dict[str, Any], function: str) -> dict[str, Any]:
        """A request's document with what this variant adds; what the request says goes first.

        Raises InvalidRequest where the request does not fit the templates.
        """
        document = dict(fields)
        for name in SAMPLING:
            value = getattr(self, name)
            if value is not None and document.get(name) is None:
                document[name] = value
        if fields.get("max_completion_tokens") is not None and fields.get("max_tokens") is None:
            document.pop("max_tokens", None)
        if self.json_schema and document.get("response_format") is None:
            schema = msgspec.Raw(self.json_schema.encode())
            wanted = {"name": function, "schema": schema, "strict": True}
            document["response_format"] = {"type": "json_schema", "json_schema": wanted}
        document["messages"] = self._messages(fields["messages"])
        return document

    def _messages(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        messages = rendered(asked, system=self.system_template, user=self.user_template)
        if self.system:
            return [{"role": "system", "content": self.system}, *messages]
        return messages


class Function(msgspec.Struct, frozen=True, kw_only=True):
    variants: dict[str, Variant]
    fallback: tuple[str, ...] = ()
    """Variants tried in this order when the chosen one has failed."""
    description: str = ""

    def choose(self, name: str, episode_id: str) -> str:
        """The variant of an episode. `name` is the function's: each draws for itself."""
        digest = hashlib.sha256(f"{name}\0{episode_id}".encode()).digest()
        at = (
            int.from_bytes(digest[:8], "big")
            / DRAWS
            * sum(v.weight for v in self.variants.values())
        )
        weighted = [
            (key, one.weight) for key, one in sorted(self.variants.items()) if one.weight > 0
        ]
        for key, weight in weighted:
            at -= weight
            if at < 0:
                return key
        return weighted[-1][0]  # a rounding error past the end

    def in_order(self, chosen: str) -> list[str]:
        """The chosen variant, then its fallbacks."""
        return [chosen, *(name for name in self.fallback if name != chosen)]


def problems(function: Function) -> Iterator[str]:
    """What is wrong with it, apart from its models."""
    weights = [variant.weight for variant in function.variants.values()]
    if not weights:
        yield "at least one variant is needed"
    elif min(weights) < 0 or sum(weights) <= 0:
        yield "weights are 0 or more, and one is above 0"
    for name in function.fallback:
        if name not in function.variants:
            yield f"fallback: there is no variant {name!r}"
    for name, variant in function.variants.items():
        for problem in _problems_of(variant):
            yield f"variants.{name}.{problem}"


def _problems_of(variant: Variant) -> Iterator[str]:
    if variant.json_schema and not _is_object(variant.json_schema):
        yield "json_schema: not a JSON object"
    if variant.system and variant.system_template:
        yield "system_template: there is a 'system' already"
    for name in ("system_template", "user_template"):
        try:
            compiled(getattr(variant, name))
        except TemplateInvalid as error:
            yield f"{name}: {error}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False
