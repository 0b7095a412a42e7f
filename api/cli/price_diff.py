"""What differs between two prices, an amount at a time: for people who review a change."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from shared.price import LongContext, Price

ALWAYS = ("input", "output")
OF_THEIR_OWN = ("cached_input", "cache_write", "reasoning", "audio_input", "audio_output")
"""Kinds of tokens that cost what their whole costs where a price does not say more."""
UNITS = ("second", "page", "character", "request", "tool_call")


class Difference(NamedTuple):
    kind: str
    now: Decimal | None
    new: Decimal | None

    @property
    def percent(self) -> str:
        if not self.now or self.new is None:
            return ""
        return f"{(self.new - self.now) / self.now * 100:+.1f}%"


def differences(now: Price | None, new: Price) -> list[Difference]:
    """All kinds where there was no price at all."""
    before = {} if now is None else amounts(now)
    after = amounts(new)
    return [
        Difference(kind, before.get(kind), after.get(kind))
        for kind in {**before, **after}
        if before.get(kind) != after.get(kind)
    ]


def amounts(price: Price) -> dict[str, Decimal]:
    """By kind, in words; without what costs nothing of its own."""
    return {
        **{name: getattr(price, name) for name in ALWAYS},
        **_said(price),
        **{name: amount for name in UNITS if (amount := getattr(price, name))},
        **{f"image {name or 'other'}": amount for name, amount in price.image.items()},
        **dict(_of_long_context(price)),
        **_of_service_tiers(price.service_tiers),
    }


def _said(price: Price) -> dict[str, Decimal]:
    return {name: amount for name in OF_THEIR_OWN if (amount := getattr(price, name)) is not None}


def _of_long_context(price: Price) -> Iterator[tuple[str, Decimal]]:
    for one in price.long_context:
        for name in LongContext.__struct_fields__[1:]:
            if (amount := getattr(one, name)) is not None:
                yield f"{name} above {one.above_tokens}", amount


def _of_service_tiers(factors: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {f"times in tier {name}": factor for name, factor in factors.items()}
