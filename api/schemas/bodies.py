"""What management routes take: bodies, and the parameters of paths and queries."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from ipaddress import ip_network
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from shared.account import MAX_BUDGET_USD
from shared.caller import DEFAULT_TENANT, Scope, UserField
from shared.job import Lane
from shared.money import settle
from shared.price import MAX_PRICE

MAX_NAME = 255
"""Names are in indexes, which bound them."""
MAX_MODEL_KEY = 512
MAX_TEXT = 10_000
MAX_ITEMS = 1_000
MAX_NETWORKS = 100
"""Each request of such a key looks through them."""
PRICE_STEP = Decimal("0.000000000001")
"""The last digit that the spend row keeps of a price."""
MAX_INT32 = 2**31 - 1
MAX_SKIP = 2**63 - 1
MAX_OVERLAP_SECONDS = 90 * 86_400
FIRST_YEAR, LAST_YEAR = 2, 9998
"""The very first and the very last moment mean infinity to Postgres' driver."""
NO_NUL = r"^[^\x00]*$"
"""Postgres stores every character but this one."""


def _in_utc(given: datetime) -> datetime:
    """A time without a zone is UTC."""
    try:
        moment = given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError("the time is out of range")
    return moment


def _price(given: Decimal) -> Decimal:
    return given.quantize(PRICE_STEP, rounding=ROUND_HALF_EVEN)


def _network(given: str) -> str:
    try:
        return str(ip_network(given, strict=False))
    except ValueError as error:
        raise ValueError("not an address or a network") from error


def _storable(given: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON, as Postgres can keep it."""
    try:
        encoded = msgspec.json.Encoder(decimal_format="number").encode(given)
        plain: dict[str, Any] = json.loads(encoded)
        if any(not _is_storable(value) for value in _leaves(plain)):
            raise ValueError("holds what cannot be stored")
    except (UnicodeError, OverflowError, RecursionError) as error:
        raise ValueError("holds what cannot be stored") from error
    return plain


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from _leaves(member)
    else:
        yield value


def _is_storable(leaf: Any) -> bool:
    if isinstance(leaf, str):
        return "\0" not in leaf
    return not isinstance(leaf, float) or abs(leaf) != float("inf")


Name = Annotated[str, StringConstraints(pattern=NO_NUL, max_length=MAX_NAME)]
Given = Annotated[str, StringConstraints(pattern=NO_NUL, min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, StringConstraints(pattern=NO_NUL, max_length=MAX_TEXT)]
ModelKey = Annotated[str, StringConstraints(pattern=NO_NUL, min_length=1, max_length=MAX_MODEL_KEY)]
Moment = Annotated[datetime, AfterValidator(_in_utc)]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable)]
Network = Annotated[str, StringConstraints(max_length=MAX_NAME), AfterValidator(_network)]
Scopes = Annotated[list[Scope], Field(max_length=MAX_ITEMS)]
Models = Annotated[list[ModelKey], Field(max_length=MAX_ITEMS)]
Networks = Annotated[list[Network], Field(max_length=MAX_NETWORKS)]
Usd = Annotated[
    Decimal,
    Field(ge=0, le=MAX_BUDGET_USD),
    AfterValidator(settle),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_BUDGET_USD}),
]
UsdPerMillion = Annotated[
    Decimal,
    Field(ge=0, le=MAX_PRICE),
    AfterValidator(_price),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_PRICE}),
]
KeyAttestation = Literal["record", "require", "default"]
Positive = Annotated[int, Field(gt=0, le=MAX_INT32)]

InPath = Annotated[str, Path(pattern=NO_NUL)]
Skip = Annotated[int, Query(ge=0, le=MAX_SKIP)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Wanted = Annotated[str | None, Query(pattern=NO_NUL)]
"""A filter; absent: everything."""
Tenant = Annotated[str, Query(pattern=NO_NUL)]
AtTime = Annotated[Moment | None, Query()]


class LimitsBody(BaseModel):
    """Ours, so a misspelt one is refused: it would be a limit that is not there."""

    model_config = ConfigDict(extra="forbid")

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    concurrent: Positive | None = None


class KeyChangeBody(BaseModel):
    """Null, and what is absent, changes nothing."""

    key_name: Text | None = None
    is_active: bool | None = None
    expires_at: Moment | None = None
    metadata: Metadata | None = None
    scopes: Scopes | None = None
    best_lane: Lane | None = None
    allowed_models: Models | None = Field(
        None, description='`["*"]` allows every model again; `[]` allows none.'
    )
    user_field: UserField | None = None
    limits: LimitsBody | None = Field(None, description="Replaced whole.")
    ip_allow_list: Networks | None = Field(
        None, description="Addresses and networks; `[]` allows every address again."
    )
    budget_id: Name | None = Field(None, description="Naming one starts its window anew.")
    attestation: KeyAttestation | None = Field(
        None, description="`default`: as its models are set to again."
    )


class NewKeyBody(BaseModel):
    key_name: Text | None = None
    user_id: Given | None = None
    expires_at: Moment | None = None
    metadata: Metadata = {}
    tenant: Given = DEFAULT_TENANT
    scopes: Scopes = []
    best_lane: Lane = "priority"
    allowed_models: Models | None = Field(
        None, description='Null and `["*"]`: every model; `[]`: none.'
    )
    user_field: UserField | None = Field(
        None, description="Null: as the catalog's `compat.user_field` says."
    )
    limits: LimitsBody = LimitsBody()
    ip_allow_list: Networks = []
    budget_id: Name | None = Field(None, description="A budget of its own, beside its user's.")
    attestation: KeyAttestation | None = Field(
        None, description="Of confidential models, beyond what they are set to; null: nothing."
    )


class RotationBody(BaseModel):
    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] = 0


class NewUserBody(BaseModel):
    user_id: Given
    alias: Text | None = None
    budget_id: Name | None = None
    blocked: bool = False
    metadata: Metadata = {}
    tenant: Given = DEFAULT_TENANT
    limits: LimitsBody = LimitsBody()


class UserChangeBody(BaseModel):
    """Null, and what is absent, changes nothing."""

    alias: Text | None = None
    budget_id: Name | None = None
    blocked: bool | None = None
    metadata: Metadata | None = None
    limits: LimitsBody | None = Field(None, description="Replaced whole.")


class BudgetBody(BaseModel):
    max_budget: Usd | None = None
    soft_budget: Usd | None = Field(
        None, description="From here on answers carry a warning; not more than `max_budget`."
    )
    budget_duration_sec: Positive | None = None


class NewBudgetBody(BudgetBody):
    tenant: Given = DEFAULT_TENANT


class PriceTierBody(BaseModel):
    """The whole request costs this, once its input has so many tokens; null: what it costs else."""

    min_input_tokens: Annotated[int, Field(gt=1, le=MAX_INT32)]
    input_price_per_million: UsdPerMillion | None = None
    output_price_per_million: UsdPerMillion | None = None
    cache_read_price_per_million: UsdPerMillion | None = None
    cache_write_price_per_million: UsdPerMillion | None = None


class PriceBody(BaseModel):
    model_key: ModelKey
    input_price_per_million: UsdPerMillion
    output_price_per_million: UsdPerMillion
    effective_at: Moment | None = None
    cache_read_price_per_million: UsdPerMillion | None = None
    cache_write_price_per_million: UsdPerMillion | None = None
    pricing_tiers: Annotated[list[PriceTierBody], Field(max_length=MAX_ITEMS)] = []
