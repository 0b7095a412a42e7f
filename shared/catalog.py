"""The catalog: a checked document as one immutable thing, named by its hash.

Processes run on a snapshot of it; its source is `gateway.toml`.
"""

import fnmatch
import hashlib
import tomllib
from decimal import Decimal
from functools import cached_property

import msgspec
from msgspec.structs import replace

from shared.catalog_checks import CatalogInvalid, check, check_rows, rows_per_job, unknown_fields
from shared.document import LANE_COUNT, ROWS_PER_JOB, Document, Model, ModelProvider, QueueLimits
from shared.function import Function

MODEL_NAME_PREFIX = "ollm::model_name::"
EMBEDDING_MODEL_NAME_PREFIX = "ollm::embedding_model_name::"
FUNCTION_NAME_PREFIX = "ollm::function_name::"
HASH_DIGITS = 16


class Target(msgspec.Struct, frozen=True):
    """A resolved model selector."""

    name: str
    """The catalog name, or `provider:model` for a model the catalog does not list."""
    model: Model
    total_seconds: float
    """What a job of it may take: the most patient of its providers decides, unless the model does."""
    pinned_provider: str | None = None


class Catalog:
    """A checked document, its hash, and how names resolve in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        check(document)
        check_rows(document, self.queue)

    @classmethod
    def from_toml(cls, text: str) -> "Catalog":
        """Raises CatalogInvalid with the line (syntax) or the path (meaning) of what is wrong."""
        try:
            given = tomllib.loads(text, parse_float=Decimal)
            document = msgspec.convert(given, Document)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise CatalogInvalid(str(error)) from error
        if unknown := list(unknown_fields(given, document)):
            raise CatalogInvalid(f"unknown fields: {', '.join(unknown)}")
        return cls(document)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Catalog":
        """From a snapshot. Another release may have written it: what we do not know is passed over.

        Raises CatalogInvalid.
        """
        try:
            return cls(msgspec.json.decode(text, type=Document))
        except msgspec.DecodeError as error:
            raise CatalogInvalid(str(error)) from error

    def to_json(self) -> bytes:
        return msgspec.json.encode(self.document, order="sorted")

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()[:HASH_DIGITS]

    @cached_property
    def queue(self) -> QueueLimits:
        """The limits of the queue, less what jobs of more than ROWS_PER_JOB rows may add."""
        limits = self.document.queue
        more = max((rows for _, rows in rows_per_job(self.document)), default=0) - ROWS_PER_JOB
        backlog = limits.max_spend_backlog - limits.lane_capacity * LANE_COUNT * max(0, more)
        return replace(limits, max_spend_backlog=backlog)

    @cached_property
    def has_limits(self) -> bool:
        """Of users or models: then every request has an account."""
        limited = (model.limits for model in self.document.models.values())
        return not all(one.are_none for one in (self.document.limits.per_user, *limited))

    @cached_property
    def longest_seconds(self) -> float:
        """No job lives longer than this, by its own deadline."""
        document = self.document
        given = [one.timeouts for one in document.providers.values()]
        given += [one.timeouts for one in document.models.values() if one.timeouts]
        for function in document.functions.values():
            asked = (one for key in function.variants for one in function.asked_by(key))
            given += [one.timeouts for one in asked if one.timeouts]
        return max((timeouts.total for timeouts in given), default=0.0)

    def resolve(self, selector: str) -> Target | None:
        """Finds the model a selector names, in the order of the API page; None if there is none.

        `ollm::model_name::<m>` (or `ollm::embedding_model_name::<m>`), an exact catalog name, `<provider>:<model>` or
        `<provider>/<model>` of a configured provider, then the detection rules.
        """
        name = selector.removeprefix(MODEL_NAME_PREFIX).removeprefix(EMBEDDING_MODEL_NAME_PREFIX)
        target = self._listed.get(name)
        if target is not None:
            return target
        if name != selector or name in self.document.models:
            return None
        return self._by_provider_prefix(name) or self._by_detection(name)

    @cached_property
    def _listed(self) -> dict[str, Target]:
        """What the catalog's own names stand for."""
        return {
            name: Target(name, model, self._total_seconds(model))
            for name, model in self.document.models.items()
            if model.active
        }

    def _total_seconds(self, model: Model) -> float:
        if model.timeouts is not None:
            return model.timeouts.total
        providers = self.document.providers
        return max(providers[route.provider].timeouts.total for route in model.providers)

    @cached_property
    def _by_route(self) -> dict[tuple[str, str], str]:
        """The catalog's names, by provider and what the model is called there."""
        return {
            (route.provider, route.upstream_model): name
            for name, model in reversed(self.document.models.items())
            for route in model.providers
        }

    def _at(self, provider: str, upstream: str) -> Target | None:
        """A model as its provider calls it. One of the catalog's keeps its price, its tier and its
        limits; one that is not active is not to be had by another name either."""
        name = self._by_route.get((provider, upstream))
        if name is None:
            return self._unlisted(provider, upstream)
        listed = self._listed.get(name)
        return None if listed is None else replace(listed, pinned_provider=provider)

    def _unlisted(self, provider: str, upstream: str) -> Target:
        model = Model(providers=[ModelProvider(provider=provider, upstream_model=upstream)])
        return Target(
            f"{provider}:{upstream}", model, self._total_seconds(model), pinned_provider=provider
        )

    def function(self, selector: str) -> tuple[str, Function] | None:
        """The function a selector names, and its name; None if there is none."""
        name = selector.removeprefix(FUNCTION_NAME_PREFIX)
        found = self.document.functions.get(name) if name != selector else None
        return None if found is None else (name, found)

    def _by_provider_prefix(self, name: str) -> Target | None:
        for separator in (":", "/"):
            provider, found, upstream = name.partition(separator)
            if found and upstream and provider in self.document.providers:
                return self._at(provider, upstream)
        return None

    def _by_detection(self, name: str) -> Target | None:
        for rule in self.document.detection:
            if fnmatch.fnmatchcase(name, rule.pattern) and rule.provider in self.document.providers:
                return self._at(rule.provider, name)
        return None
