"""The catalog: providers, models, prices, limits and timeouts, as one immutable document.

`gateway.toml` is its source; processes run on a snapshot of it, named by its hash. Secrets are
never in it: a provider names the environment variable that holds its key.
"""

import fnmatch
import hashlib
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from shared.account import RateLimits
from shared.caller import UserField
from shared.function import Function, problems
from shared.price import Price, SeedPrice, price_key, split_key
from shared.price import faults as price_faults
from shared.timeouts import Retries, Timeouts

Tier = Literal["TEE", "ZDR", ""]
ProviderType = Literal["openai", "near", "phala", "vercel"]

MODEL_NAME_PREFIX = "ollm::model_name::"
EMBEDDING_MODEL_NAME_PREFIX = "ollm::embedding_model_name::"
FUNCTION_NAME_PREFIX = "ollm::function_name::"
HASH_DIGITS = 16
MAX_PAYLOAD_BYTES = 480 << 20
"""Valkey takes no value above 512 MiB (proto-max-bulk-len)."""
MAX_TTL_SECONDS = 366 * 86_400
LANE_COUNT = 4
ROWS_PER_JOB = 4
"""Spend rows a job may write, at least: two attempts at each of two providers."""
MAX_ROWS_PER_JOB = 32
"""A hundred jobs are settled by one call, and Lua hands on no more than 8,000 values at once."""


class CatalogInvalid(Exception):
    """The document is not a catalog; the message says where and why."""


class UnknownProvider(Exception):
    """A name that no provider of the catalog has."""


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Breaker(_Table, frozen=True):
    """After `failures` in a row the provider is left alone for `open_seconds`."""

    failures: int = 10
    open_seconds: float = 15.0


class Provider(_Table, frozen=True):
    type: ProviderType = "openai"
    base_url: str = ""
    base_url_env: str | None = None
    """An environment variable that, when set, replaces `base_url`."""
    base_path: str = ""
    """Appended to the base URL, for deployments where only the host varies."""
    api_key_env: str | None = None
    """The environment variable with the key. The provider is off while it is not set."""
    enabled: bool = True
    output_cap_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Which one it is sent, where a budget bounds a request that has none."""
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    breaker: Breaker = Breaker()


class ModelProvider(_Table, frozen=True):
    """One way to reach a model: which provider, under which name there."""

    provider: str
    upstream_model: str
    price: Price | None = None
    """Where this provider charges otherwise than the model says."""


class Model(_Table, frozen=True):
    providers: list[ModelProvider]
    tier: Tier = ""
    active: bool = True
    display_name: str = ""
    description: str = ""
    price: Price | None = None
    """None: nobody has said what it costs. It costs nothing, and is not free: see budgets."""
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    timeouts: Timeouts | None = None
    """None: the provider's."""
    limits: RateLimits = RateLimits()
    """Of all who ask for it together."""


class DetectionRule(_Table, frozen=True):
    """A bare model name that matches `pattern` belongs to `provider`."""

    pattern: str
    provider: str


class Auth(_Table, frozen=True):
    mode: Literal["required", "open"] = "required"


class QueueLimits(_Table, frozen=True):
    lane_capacity: int = 10_000
    """Jobs waiting or running per lane; one more is 503 queue_full."""
    max_sealed_bytes: int = 1 << 30
    """Sealed payload bytes of all jobs together; files that wait may be half of it."""
    max_spend_backlog: int = 2_000_000
    """Spend rows waiting for ClickHouse. Beyond it admission stops, so that no row is dropped."""
    queue_seconds: float = 60.0
    """How long a job may wait in its lane."""

    @property
    def admit_below_backlog(self) -> int:
        """The backlog at which admission stops: every job in the lanes may still add its rows."""
        return self.max_spend_backlog - self.lane_capacity * LANE_COUNT * ROWS_PER_JOB


class Compat(_Table, frozen=True):
    accept_stop_string: bool = False
    always_stream_usage: bool = False
    usage_cost: bool = False
    user_field: UserField = "attribute"
    """Of keys that are made from now on, where nobody says it."""


class Dryrun(_Table, frozen=True):
    allow: Literal["all", "scoped"] = "all"
    """Who may use `ollm::dryrun`, which costs the operator and nobody else: with `scoped`, keys with
    the scope `dryrun` alone."""


class Limits(_Table, frozen=True):
    max_body_bytes: int = 100 << 20
    max_answer_bytes: int = 64 << 20
    """A provider's whole answer; more is 502."""
    max_output_tokens: int = 16_384
    """What a request without a cap may generate where a budget applies, unless its model says."""
    per_user: RateLimits = RateLimits()
    """Of every user that has none of its own."""


class CacheBounds(_Table, frozen=True):
    """Of the exact cache, `ollm::cache_options`."""

    ttl_seconds: float = 86_400.0
    """An entry's life."""
    max_entry_bytes: int = 1 << 20
    """A longer answer is not kept."""
    max_bytes: int = 256 << 20
    """All entries of a shard together; beyond it those go first that would expire first."""


class Metrics(_Table, frozen=True):
    require_key: bool = False


class Target(msgspec.Struct, frozen=True):
    """A resolved model selector."""

    name: str
    """The catalog name, or `provider:model` for a model the catalog does not list."""
    model: Model
    total_seconds: float
    """What a job of it may take: the most patient of its providers decides, unless the model does."""
    pinned_provider: str | None = None


class Document(_Table, frozen=True):
    providers: dict[str, Provider] = {}
    models: dict[str, Model] = {}
    functions: dict[str, Function] = {}
    pricing: dict[str, SeedPrice] = {}
    detection: list[DetectionRule] = []
    auth: Auth = Auth()
    queue: QueueLimits = QueueLimits()
    compat: Compat = Compat()
    dryrun: Dryrun = Dryrun()
    limits: Limits = Limits()
    cache: CacheBounds = CacheBounds()
    metrics: Metrics = Metrics()


class Catalog:
    """A checked document, its hash, and how names resolve in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        _check(document)
        _check_rows(self)

    @classmethod
    def from_toml(cls, text: str) -> "Catalog":
        """Raises CatalogInvalid with the line (syntax) or the path (meaning) of what is wrong."""
        try:
            given = tomllib.loads(text, parse_float=Decimal)
            document = msgspec.convert(given, Document)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise CatalogInvalid(str(error)) from error
        if unknown := list(_unknown(given, document)):
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
        more = max((rows for _, rows in _rows_per_job(self.document)), default=0) - ROWS_PER_JOB
        backlog = limits.max_spend_backlog - limits.lane_capacity * LANE_COUNT * max(0, more)
        return msgspec.structs.replace(limits, max_spend_backlog=backlog)

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
                return self._unlisted(provider, upstream)
        return None

    def _by_detection(self, name: str) -> Target | None:
        for rule in self.document.detection:
            if fnmatch.fnmatchcase(name, rule.pattern) and rule.provider in self.document.providers:
                return self._unlisted(rule.provider, name)
        return None


def priced_name(document: Document, model_key: str) -> str:
    """The key a price is kept under: a model's name, or `provider:model`.

    Raises ValueError for what is neither, and UnknownProvider.
    """
    if model_key in document.models:
        return model_key
    given, model = split_key(model_key)
    provider = next((name for name in document.providers if name.lower() == given.lower()), None)
    if provider is None:
        raise UnknownProvider(given)
    return price_key(provider, model)


def seed_prices(document: Document) -> dict[str, SeedPrice]:
    """Under the keys they are kept under, with times in UTC."""
    return {
        priced_name(document, key): replace(seed, effective_at=_in_utc(seed.effective_at))
        for key, seed in document.pricing.items()
    }


def _in_utc(given: datetime | None) -> datetime | None:
    """A time without a zone is UTC."""
    if given is None or given.tzinfo is not None:
        return given
    return given.replace(tzinfo=UTC)


TIER_OF_TYPE: dict[str, Tier] = {"near": "TEE", "phala": "TEE", "vercel": "ZDR", "openai": ""}


def _unknown(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """The paths of members that were given and do not exist: a typing error must not pass."""
    if isinstance(read, msgspec.Struct):
        for name, value in given.items():
            if name not in read.__struct_fields__:
                yield f"{path}{name}"
            else:
                yield from _unknown(value, getattr(read, name), f"{path}{name}.")
    elif isinstance(read, dict):
        for name, value in given.items():
            yield from _unknown(value, read[name], f"{path}{name}.")
    elif isinstance(read, list):
        for at, (value, item) in enumerate(zip(given, read, strict=True)):
            yield from _unknown(value, item, f"{path}{at}.")


def _check(document: Document) -> None:
    if document.limits.max_body_bytes * 2 > document.queue.max_sealed_bytes:
        raise CatalogInvalid("queue.max_sealed_bytes: must be at least twice limits.max_body_bytes")
    for name in ("max_body_bytes", "max_answer_bytes"):
        if not 0 < getattr(document.limits, name) <= MAX_PAYLOAD_BYTES:
            raise CatalogInvalid(f"limits.{name}: must be above 0 and at most {MAX_PAYLOAD_BYTES}")
    _check_cache(document.cache)
    _check_limits("limits.per_user", document.limits.per_user)
    if document.limits.max_output_tokens <= 0:
        raise CatalogInvalid("limits.max_output_tokens: must be above 0")
    for name, model in document.models.items():
        _check_limits(f"models.{name}.limits", model.limits)
        if not model.providers:
            raise CatalogInvalid(f"models.{name}: at least one provider is needed")
        if model.price is not None:
            _check_price(f"models.{name}.price", model.price)
        for route in model.providers:
            _check_route(document, name, model, route)
            if route.price is not None:
                _check_price(f"models.{name}.providers.{route.provider}.price", route.price)
    for name, function in document.functions.items():
        _check_function(document, name, function)
    for key, seed in document.pricing.items():
        _check_seed(document, key, seed)


def _check_seed(document: Document, key: str, seed: SeedPrice) -> None:
    try:
        priced_name(document, key)
    except UnknownProvider as error:
        raise CatalogInvalid(
            f"Cannot set pricing for model '{key}': provider '{error}' is not configured in the"
            " providers section"
        ) from None
    except ValueError:
        raise CatalogInvalid(
            f"pricing.{key}: there is no such model, nor is it 'provider:model'"
        ) from None
    _check_price(f"pricing.{key}", seed.price)


def _check_limits(path: str, limits: RateLimits) -> None:
    for name in RateLimits.__struct_fields__:
        value = getattr(limits, name)
        if value is not None and value <= 0:
            raise CatalogInvalid(f"{path}.{name}: must be above 0")


def _check_cache(cache: CacheBounds) -> None:
    if not 0.001 <= cache.ttl_seconds <= MAX_TTL_SECONDS:
        raise CatalogInvalid(f"cache.ttl_seconds: must be above 0 and at most {MAX_TTL_SECONDS}")
    if not 0 < cache.max_entry_bytes <= MAX_PAYLOAD_BYTES // 2:
        most = MAX_PAYLOAD_BYTES // 2  # an answer is held and sent with what is put round it
        raise CatalogInvalid(f"cache.max_entry_bytes: must be above 0 and at most {most}")
    if cache.max_bytes < cache.max_entry_bytes:
        raise CatalogInvalid("cache.max_bytes: must not be below cache.max_entry_bytes")


def _check_price(path: str, price: Price) -> None:
    for fault in price_faults(price):
        raise CatalogInvalid(f"{path}: {fault}")


def _check_function(document: Document, name: str, function: Function) -> None:
    for problem in problems(function):
        raise CatalogInvalid(f"functions.{name}: {problem}")
    tiers = set()
    for key in function.variants:
        for asked in function.asked_by(key):
            model = document.models.get(asked.model)
            if model is None:
                raise CatalogInvalid(
                    f"functions.{name}.variants.{key}: there is no model {asked.model!r}"
                )
            tiers.add(model.tier)
    if len(tiers) > 1:
        raise CatalogInvalid(f"functions.{name}: its variants are of several tiers")


def _check_rows(catalog: Catalog) -> None:
    """A backlog without room for the rows of all jobs in the lanes would drop some."""
    for path, rows in _rows_per_job(catalog.document):
        if rows > MAX_ROWS_PER_JOB:
            raise CatalogInvalid(
                f"{path}: a request may make {rows} calls, more than {MAX_ROWS_PER_JOB}"
            )
    if (room := catalog.queue.admit_below_backlog) <= 0:
        least = catalog.document.queue.max_spend_backlog - room
        raise CatalogInvalid(f"queue.max_spend_backlog: must be above {least} for these lanes")


def _rows_per_job(document: Document) -> Iterator[tuple[str, int]]:
    """How many calls, each with its row, a request may make: by model and by variant."""
    for name in document.models:
        yield f"models.{name}", _calls(document, name, None)
    for name, function in document.functions.items():
        for key in function.variants:
            asked = [one for step in function.in_order(key) for one in function.asked_by(step)]
            calls = (_calls(document, one.model, one.retries) for one in asked)
            yield f"functions.{name}.variants.{key}", sum(calls)


def _calls(document: Document, model: str, retries: Retries | None) -> int:
    routes = document.models[model].providers
    return sum((retries or document.providers[one.provider].retries).attempts for one in routes)


def _check_route(document: Document, name: str, model: Model, route: ModelProvider) -> None:
    provider = document.providers.get(route.provider)
    if provider is None:
        raise CatalogInvalid(f"models.{name}: there is no provider {route.provider!r}")
    # Fallback must never leave the tier: a TEE answer comes from a TEE or not at all.
    if model.tier and TIER_OF_TYPE[provider.type] != model.tier:
        raise CatalogInvalid(
            f"models.{name}: provider {route.provider!r} ({provider.type}) is not of tier {model.tier}"
        )


def dump(value: Any) -> Any:
    """A catalog value as plain JSON-able data."""
    return msgspec.to_builtins(value)
