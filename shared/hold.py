"""A hold: the worst-case cost of a job, set aside on its accounts while it runs.

It is an upper bound wherever one is known: a token of text is at least a byte, and an output cap
goes to the provider with the request. What costs more all the same is charged in full.
"""

from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal

import msgspec

from shared.account import MAX_BUDGET_USD
from shared.money import NANO_USD, ZERO
from shared.price import MILLION, Price

MAX_NANO = MAX_BUDGET_USD * 10**9 + 1
BYTES_PER_TOKEN = 4
"""Of text, on average: what a limit of tokens takes before the use is known."""
AUDIO_BYTES_PER_SECOND = 500
"""Of the sparest codec for speech in use: a file hardly lasts longer than its bytes at this rate."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The most one call may use."""

    input_tokens: int = 0
    output_tokens: int = 0
    seconds: int = 0
    images: int = 0


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What a job sets aside."""

    nano: int = 0
    """US nano-dollars, on each of its budgets."""
    is_free: bool = False
    """Nothing it can do costs anything: a spent budget does not stop it."""
    tokens: int = 0
    """That limits of tokens count until the use is known."""


def worst_case(price: Price, bounds: Bounds) -> Decimal:
    """US dollars: every token at the dearest rate that may apply to it."""
    total = (
        input_rate(price) * bounds.input_tokens + output_rate(price) * bounds.output_tokens
    ) / MILLION
    total += price.second * bounds.seconds + price.request
    if price.image:
        total += max(price.image.values()) * bounds.images
    return total * max([Decimal(1), *price.service_tiers.values()])


def input_rate(price: Price) -> Decimal:
    """Of a million tokens, whatever kind of input they are."""
    own = (price.input, price.cached_input, price.cache_write, price.audio_input)
    long = (x for one in price.long_context for x in (one.input, one.cached_input, one.cache_write))
    return _dearest((*own, *long))


def output_rate(price: Price) -> Decimal:
    """Of a million tokens, whatever kind of output they are."""
    own = (price.output, price.reasoning, price.audio_output)
    return _dearest((*own, *(one.output for one in price.long_context)))


def round_up(amount: Decimal) -> int:
    """In nano-dollars: a hold is never below the cost. No budget is above the most."""
    nano = int((amount / NANO_USD).to_integral_value(rounding=ROUND_CEILING))
    return min(nano, MAX_NANO)


def _dearest(rates: Iterable[Decimal | None]) -> Decimal:
    return max((rate for rate in rates if rate is not None), default=ZERO)
