"""The list prices that genai-prices knows, as prices of ours: offline, what the package brings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from api.cli.price_diff import amounts
from api.schemas.bodies import PRICE_STEP
from shared.money import ZERO
from shared.price import LongContext, Price, faults

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider, TieredPrices

KINDS = {
    "input_mtok": ("input", 1),
    "output_mtok": ("output", 1),
    "cache_read_mtok": ("cached_input", 1),
    "cache_write_mtok": ("cache_write", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "input_audio_mtok": ("audio_input", 1),
    "output_audio_mtok": ("audio_output", 1),
    "requests_kcount": ("request", 1000),
    "input_mchars": ("character", 1),
    "input_document_kpages": ("page", 1000),
    "audio_hours": ("second", 3600),
    "input_audio_hours": ("second", 3600),
}
"""By the list's name: ours, and how many of our units one of theirs has."""
WITH_TIERS = ("input", "output", "cached_input", "cache_write")
"""What a price may have other amounts for where the input is long."""
NEVER_CALLED = {"processing": "batch"}
"""A way to call a model that the gateway does not take: what it costs need not be known."""


class NotTaken(Exception):
    """The list's price is none of ours; the message says why."""


class Dated(NamedTuple):
    effective_at: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list has for one model from a time on."""

    name: str
    """`<provider>/<model>`, of the list."""
    prices: list[Dated]
    """The one in force at that time, and those that are announced for later."""
    notes: list[str]
    """What is not in them."""


class PriceList:
    """`load_list()` makes it."""

    def __init__(self, providers: "list[Provider]") -> None:
        from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id

        self._snapshot = DataSnapshot(providers=providers, from_auto_update=False)
        self._by_id = find_provider_by_id

    def provider(self, *, name: str, url: str) -> str | None:
        """The list's name of a provider: by the address that is called, else by our name for it."""
        if url:
            try:
                return self._snapshot.find_provider(None, None, url).id
            except LookupError:
                pass
        known = {one.id for one in self._snapshot.providers}
        return name if name in known else None

    def find(self, provider: str, model: str, at: datetime) -> Listed:
        """Raises NotTaken."""
        known = self._by_id(self._snapshot.providers, provider)
        if known is None:
            raise NotTaken(f"the list has no provider {provider!r}")
        found = known.find_model(model, all_providers=self._snapshot.providers)
        if found is None:
            raise NotTaken(f"the list of {known.id} does not have it")
        if not found.prices:
            raise NotTaken("it has no price")
        notes: list[str] = []
        prices: list[Dated] = []
        for moment in (at, *_starts(found, after=at)):
            price = _with_tiers_of_service(found, moment, notes)
            if not prices or prices[-1].price != price:
                prices.append(Dated(moment, price))
        return Listed(f"{known.id}/{found.id}", prices, list(dict.fromkeys(notes)))


def load_list() -> PriceList:
    """The package is imported here: it takes half a second, and nothing else needs it."""
    from genai_prices.data import providers

    return PriceList(providers)


def _starts(model: "ModelInfo", *, after: datetime) -> list[datetime]:
    """When other prices begin. Raises NotTaken where they go by more than the date."""
    from genai_prices.types import StartDateConstraint

    standard = model.prices if isinstance(model.prices, list) else []
    constraints = [one.constraint for one in standard]
    constraints += [one.constraint for one in _variants(model)]
    found = []
    for constraint in constraints:
        if isinstance(constraint, StartDateConstraint):
            found.append(datetime.combine(constraint.start_date, time(), UTC))
        elif constraint is not None:
            raise NotTaken("its price depends on the time of day")
    return sorted(moment for moment in found if moment > after)


def _with_tiers_of_service(model: "ModelInfo", at: datetime, notes: list[str]) -> Price:
    """The standard price, and what other tiers multiply it by."""
    standard = _price(model.get_prices(at), notes)
    factors = {}
    for when in _contexts(model):
        if len(when) == 1 and "service_tier" in when:
            factor = _factor(standard, _price(model.get_prices(at, when), notes))
            if factor is not None:
                factors[when["service_tier"]] = factor
                continue
        said = ", ".join(f"{name}={value}" for name, value in when.items())
        notes.append(f"{said} has other prices, which are left out")
    factors = {name: factor for name, factor in factors.items() if factor != 1}
    price = replace(standard, service_tiers=factors)
    if wrong := faults(price):
        raise NotTaken(wrong[0])
    return price


def _contexts(model: "ModelInfo") -> Iterator[dict[str, str]]:
    """The conditions of a request under which the model costs something else."""
    seen = []
    for variant in _variants(model):
        if variant.when not in seen:
            seen.append(variant.when)
            yield variant.when


def _variants(model: "ModelInfo") -> "list[PriceVariant]":
    return [one for one in model.price_variants or () if one.when != NEVER_CALLED]


def _factor(standard: Price, other: Price) -> Decimal | None:
    """By what every amount is multiplied; None where they are not all by the same."""
    ours, theirs = amounts(standard), amounts(other)
    if ours.keys() != theirs.keys() or not any(ours.values()):
        return None
    factor = next(theirs[name] / ours[name] for name in ours if ours[name])
    return factor if all(ours[name] * factor == theirs[name] for name in ours) else None


def _price(listed: "ModelPrice", notes: list[str]) -> Price:
    from genai_prices.types import TieredPrices

    base: dict[str, Any] = {}
    tiered: dict[str, TieredPrices] = {}
    for name, value in vars(listed).items():
        if value is None:
            continue
        if name not in KINDS:
            notes.append(f"{name} is not metered by itself, and left out")
            continue
        ours, units = KINDS[name]
        if isinstance(value, TieredPrices):
            if ours not in WITH_TIERS:
                raise NotTaken(f"its {name} goes by the length of the input")
            tiered[ours], value = value, value.base
        amount = _exact(value / units)
        if base.setdefault(ours, amount) != amount:
            raise NotTaken(f"it has several prices for a {ours}")
    if not base:
        raise NotTaken("it has no price for anything that is metered")
    starts = sorted({tier.start for prices in tiered.values() for tier in prices.tiers})
    long = tuple(_long_context(base, tiered, start) for start in starts)
    return Price(**base, long_context=long)


def _long_context(
    base: Mapping[str, Decimal], tiered: Mapping[str, "TieredPrices"], start: int
) -> LongContext:
    """What is in force above one bound: of each kind the last tier that has begun."""
    found = {name: base[name] for name in WITH_TIERS if name in base}
    for name, prices in tiered.items():
        begun = [tier.price for tier in prices.tiers if tier.start <= start]
        if begun:
            found[name] = _exact(begun[-1])
    return LongContext(
        above_tokens=start,
        input=found.get("input", ZERO),
        output=found.get("output", ZERO),
        cached_input=found.get("cached_input"),
        cache_write=found.get("cache_write"),
    )


def _exact(amount: Decimal) -> Decimal:
    """To the last digit that a spend row keeps, without zeros that say nothing."""
    return amount.quantize(PRICE_STEP, rounding=ROUND_HALF_EVEN).normalize() + ZERO
