"""A variant of a function: one way to do its task.

It is a model and what is said to it beside the request; or a panel: several of its sibling variants
answer side by side (the candidates), and one answer is chosen, or made, of theirs.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from shared.prompt import rendered
from shared.template import TemplateInvalid, compiled
from shared.timeouts import Retries, Timeouts

MAX_CANDIDATES = 8
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
OF_ANY_TYPE = frozenset({"type", "weight"})
OF_PANELS = frozenset({"candidates", "candidate_timeout", "evaluator", "fuser"})


class Aggregator(msgspec.Struct, frozen=True, kw_only=True):
    """Makes one answer of the candidates': chooses it (`evaluator`) or writes it (`fuser`)."""

    model: str
    """A model of the catalog."""
    system: str = ""
    """A system message, before those of the request."""
    temperature: float | None = None
    max_tokens: int | None = None
    timeouts: Timeouts | None = None
    """None: the model's."""
    retries: Retries | None = None
    """None: those of the model's providers."""

    def as_variant(self) -> "Variant":
        return Variant(**msgspec.structs.asdict(self))


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["chat_completion", "best_of_n", "mixture_of_n"] = "chat_completion"
    model: str = ""
    """A model of the catalog."""
    weight: float = 1.0
    """Its share, among those of its function. 0: only by name, as a fallback or as a candidate."""
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
    candidates: tuple[str, ...] = ()
    """Of a panel: variants of the same function; one may stand there more than once."""
    candidate_timeout: float = 300.0
    """Seconds the candidates have, and the evaluator after them."""
    evaluator: Aggregator | None = None
    """Of `best_of_n`: chooses."""
    fuser: Aggregator | None = None
    """Of `mixture_of_n`: writes."""

    @property
    def is_panel(self) -> bool:
        return self.type != "chat_completion"

    @property
    def aggregator(self) -> Aggregator | None:
        return self.evaluator or self.fuser

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


def problems(variant: Variant) -> Iterator[str]:
    """What is wrong with it, apart from its model and its candidates."""
    fields = {field.name: field.default for field in msgspec.structs.fields(Variant)}
    foreign = fields.keys() - OF_PANELS if variant.is_panel else OF_PANELS
    for name in sorted(foreign - OF_ANY_TYPE):
        if getattr(variant, name) != fields[name]:
            yield f"{name}: means nothing to a variant of type {variant.type!r}"
    yield from _panel_problems(variant) if variant.is_panel else _prompt_problems(variant)


def _panel_problems(variant: Variant) -> Iterator[str]:
    needed, other = "evaluator", "fuser"
    if variant.type == "mixture_of_n":
        needed, other = other, needed
    if getattr(variant, needed) is None:
        yield f"{needed}: is needed by a variant of type {variant.type!r}"
    if getattr(variant, other) is not None:
        yield f"{other}: means nothing to a variant of type {variant.type!r}"
    if not 1 <= len(variant.candidates) <= MAX_CANDIDATES:
        yield f"candidates: must be 1 to {MAX_CANDIDATES}"
    if variant.candidate_timeout <= 0:
        yield "candidate_timeout: must be above 0"


def _prompt_problems(variant: Variant) -> Iterator[str]:
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
