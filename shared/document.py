"""The document of a catalog, as `gateway.toml` has it: providers, models, functions, limits, switches.

Secrets are never in it: a provider names the environment variable that holds its key.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from shared.account import RateLimits
from shared.caller import AttestationWish, UserField
from shared.function import Function
from shared.price import Price, SeedPrice, price_key, split_key
from shared.timeouts import Retries, Timeouts

Tier = Literal["TEE", "ZDR", ""]
ProviderType = Literal["openai", "near", "phala", "vercel"]
ReportShape = Literal[
    "near-gateway", "near-direct", "vllm-proxy", "aci-b", "aci-c", "chutes", "tinfoil"
]  # fmt: skip
"""What attestation reports look like."""
AttestationMode = Literal["off", "record", "require"]
DEMOTABLE = ("gpu_measurements",)
"""NVIDIA's service may be out of reach; everything else is there or is not."""
LANE_COUNT = 4
ROWS_PER_JOB = 4
"""Spend rows a job may write, at least: two attempts at each of two providers."""


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
    evidence_url_env: str | None = None
    """Of a simulated provider: the environment variable with the address that collateral and GPU tokens
    come from. Its machines are judged by `GATEWAY_ATTESTATION_ROOTS`, and nobody else's are."""
    attestation_shapes: tuple[ReportShape, ...] = ()
    """Of the reports it may prove itself by; empty: any but those of resold nodes."""
    tls_key_required: bool = False
    """Whether its reports must attest the TLS key that prompts go to."""
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
    attestation: AttestationMode | None = None
    """None: `record` where it has a tier, else `off`."""
    has_gpu: bool = True
    """Of a confidential machine: `False` where it has none, so that none need be proven."""
    compose_hashes: tuple[str, ...] = ()
    """Of the applications that are known to serve it; empty: no list is kept."""
    os_images: tuple[str, ...] = ()
    """Of the operating systems that are known to run them: SHA-256 of MRTD, RTMR0, RTMR1 and RTMR2."""

    @property
    def attestation_mode(self) -> AttestationMode:
        return self.attestation or ("record" if self.tier else "off")


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
    max_receipt_backlog: int = 500_000
    """Entries of transcripts that wait for their receipts: of one job each, or of some that ended
    together. Beyond it admission stops."""
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
    unpriced: Literal["refuse", "allow"] = "refuse"
    """Whether a model without a price may be used under a budget: nothing would be counted."""
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


class Attestation(_Table, frozen=True):
    """Of receipts, and of what they rest on."""

    receipts: bool = True
    """`False`: none, but where a model or a key requires attestation."""
    drain_on_disconnect: bool = False
    """Whether a stream of a confidential model is read to its end although its client has left."""
    drain_seconds: float = 30.0
    """For so long at most."""
    pccs_url: str = "https://pccs.phala.network"
    nras_url: str = "https://nras.attestation.nvidia.com"
    allowed_tcb: tuple[str, ...] = ("UpToDate",)
    demoted: tuple[str, ...] = ()
    """Factors that decide by the book, and only inform here."""
    session_seconds: float = 300.0
    """How old a report may be when a call under it begins."""
    deadline_seconds: float = 1200.0
    """After the answer's end: what was not obtained by then never will be."""


class Scanner(_Table, frozen=True):
    """The pages and routes that show what was asked for, and nothing of its content."""

    access: Literal["key", "public", "off"] = "key"


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
    attestation: Attestation = Attestation()
    scanner: Scanner = Scanner()

    def attestation_of(
        self, models: Iterable[Model], wish: AttestationWish | None
    ) -> AttestationMode:
        """For a job that any of these models may answer: the strictest of theirs and of the key's.

        A key's wish for a record is one for models that have something to tell of themselves.
        """
        asked = list(models)
        modes: list[AttestationMode] = [model.attestation_mode for model in asked]
        if wish == "require" or (wish and any(model.tier for model in asked)):
            modes.append(wish)
        if "require" in modes:
            return "require"
        return "record" if "record" in modes and self.attestation.receipts else "off"


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


def dump(value: Any) -> Any:
    """A catalog value as plain JSON-able data."""
    return msgspec.to_builtins(value)
