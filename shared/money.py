"""Money: exact decimals in US dollars, rounded once, to a nano-dollar, when a cost is settled."""

from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

NANO_USD = Decimal("0.000000001")
"""The smallest amount a cost is kept in. Integers of it stay exact in Lua below 2^53 ($9 M)."""

ZERO = Decimal(0)


def settle(cost: Decimal) -> Decimal:
    """The one rounding: half-even to a nano-dollar. This value is the row, counter and header."""
    return cost.quantize(NANO_USD, rounding=ROUND_HALF_EVEN)


def to_nano(cost: Decimal) -> int:
    """A settled cost as whole nano-dollars, for Valkey's integer counters."""
    return int(settle(cost) / NANO_USD)


def from_nano(nano_usd: int) -> Decimal:
    return settle(Decimal(nano_usd) * NANO_USD)


def plain(amount: Decimal) -> str:
    """Every digit that counts written out: exact, and no exponent for a reader to miss."""
    return format(amount.normalize(), "f")


def as_json(amount: Decimal) -> msgspec.Raw:
    """A JSON number with every digit written out: exact, and no exponent for a reader to miss."""
    return msgspec.Raw(format(amount, "f").encode())
