"""A price: what each kind of use costs, and the exact cost of a usage at it."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.money import ZERO, settle
from shared.usage import Usage

MILLION = Decimal(1_000_000)
MAX_PRICE = 999_999
"""What the spend row's columns hold."""
ANY_IMAGE = ""


def price_key(provider: str, upstream_model: str) -> str:
    """The name under which the price of one way to a model is kept, and travels with a job."""
    return f"{provider}:{upstream_model}"


def split_key(model_key: str) -> tuple[str, str]:
    """Provider and model: the first `:` or `/` splits. Raises ValueError without two halves."""
    at = min((model_key.find(sign) for sign in ":/" if sign in model_key), default=-1)
    provider, model = model_key[: max(at, 0)].strip(), model_key[at + 1 :]
    if at < 0 or not provider or not model:
        raise ValueError(model_key)
    return provider, model


class LongContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """What tokens cost in a request whose input is long: all of them, not those above the bound."""

    above_tokens: int
    """Of the input, cached ones included."""
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """US dollars: per million for tokens and characters, else for each.

    A kind of token without a price of its own costs what its whole costs: cached, written and audio
    input what input costs, reasoning and audio output what output costs.
    """

    input: Decimal = ZERO
    output: Decimal = ZERO
    cached_input: Decimal | None = None
    """For input read from the provider's cache."""
    cache_write: Decimal | None = None
    """For input written to it."""
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image: Mapping[str, Decimal] = {}
    """By `<size>/<quality>`, `<size>`, or, for every other image, the empty name."""
    second: Decimal = ZERO
    """Of audio or video."""
    page: Decimal = ZERO
    character: Decimal = ZERO
    """Per million."""
    request: Decimal = ZERO
    """For each call that is billed."""
    tool_call: Decimal = ZERO
    long_context: tuple[LongContext, ...] = ()
    service_tiers: Mapping[str, Decimal] = {}
    """What the whole cost is multiplied by, by the tier that served the call."""

    @property
    def is_free(self) -> bool:
        """Nothing that is used could cost anything."""
        return not any(_amounts(self))

    def cost(self, usage: Usage, service_tier: str = "") -> Decimal:
        """The settled cost: each token is counted once, and the sum is rounded once."""
        price = self._in_force(usage.input_tokens) if self.long_context else self
        total = _of_tokens(price, usage) / MILLION
        if usage.counts_more_than_tokens:
            total += self._of_units(usage)
        if self.request:
            total += self.request
        if self.service_tiers:
            total *= self.service_tiers.get(service_tier, 1)
        return settle(total)

    def _in_force(self, input_tokens: int) -> "Price":
        """This price, or that of the highest bound which the input passes."""
        passed = [one for one in self.long_context if input_tokens > one.above_tokens]
        if not passed:
            return self
        highest = max(passed, key=lambda one: one.above_tokens)
        return msgspec.structs.replace(
            self,
            input=highest.input,
            output=highest.output,
            cached_input=highest.cached_input,
            cache_write=highest.cache_write,
        )

    def _of_units(self, usage: Usage) -> Decimal:
        return (
            self._of_an_image(usage.image_kind) * usage.images
            + self.second * usage.seconds
            + self.page * usage.pages
            + self.character * usage.characters / MILLION
            + self.tool_call * usage.tool_calls
        )

    def _of_an_image(self, kind: str) -> Decimal:
        size, _, _ = kind.partition("/")
        names = (kind, size, ANY_IMAGE)
        return next((self.image[name] for name in names if name in self.image), ZERO)


class SeedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs that has no price in the database yet, in Otari's words."""

    input_price_per_million: Decimal
    output_price_per_million: Decimal
    cache_read_price_per_million: Decimal | None = None
    cache_write_price_per_million: Decimal | None = None
    effective_at: datetime | None = None
    """None: when it is written."""

    @property
    def price(self) -> Price:
        return Price(
            input=self.input_price_per_million,
            output=self.output_price_per_million,
            cached_input=self.cache_read_price_per_million,
            cache_write=self.cache_write_price_per_million,
        )


def _of_tokens(price: Price, usage: Usage) -> Decimal:
    """In millionths of a dollar. Parts are never more than their whole, whatever was reported."""
    left = usage.input_tokens
    total = ZERO
    if usage.cached_input_tokens or usage.cache_write_tokens or usage.audio_input_tokens:
        for count, own in (
            (usage.cached_input_tokens, price.cached_input),
            (usage.cache_write_tokens, price.cache_write),
            (usage.audio_input_tokens, price.audio_input),
        ):
            part = min(count, left)
            left -= part
            total += (price.input if own is None else own) * part
    total += price.input * left
    left = usage.output_tokens
    if price.reasoning is not None or price.audio_output is not None:
        for count, own in (
            (usage.reasoning_tokens, price.reasoning),
            (usage.audio_output_tokens, price.audio_output),
        ):
            part = min(count, left)
            left -= part
            total += (price.output if own is None else own) * part
    return total + price.output * left


def _amounts(price: Price) -> list[Decimal]:
    """All that could make a usage cost something."""
    own = [price.cached_input, price.cache_write, price.reasoning]
    own += [price.audio_input, price.audio_output]
    return [
        *(price.input, price.output, price.second, price.page, price.character),
        *(price.request, price.tool_call, *price.image.values()),
        *(amount for amount in own if amount is not None),
        *(amount for one in price.long_context for amount in (one.input, one.output)),
    ]


UNPRICED = Price()
"""Of what nobody has put a price on."""


def faults(price: Price) -> list[str]:
    """What is wrong with it: amounts that are negative or no numbers."""
    amounts = [*_amounts(price), *price.service_tiers.values()]
    for one in price.long_context:
        amounts += [x for x in (one.cached_input, one.cache_write) if x is not None]
    wrong = [amount for amount in amounts if not amount.is_finite() or amount < 0]
    found = ["an amount is negative or not a number"] if wrong else []
    if not wrong and any(amount > MAX_PRICE for amount in amounts):
        found.append(f"an amount is above {MAX_PRICE}")
    if any(one.above_tokens <= 0 for one in price.long_context):
        found.append("long_context: above_tokens must be above 0")
    return found
