"""What a call used, by kind of token, and what that costs at a price."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from shared.money import ZERO, settle

TOKENS_PER_MILLION = Decimal(1_000_000)
CHARACTERS_PER_TOKEN = 8
"""A floor for estimates of text: no tokenizer in use packs more than this on average."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens by kind. Cached tokens are a part of input, reasoning tokens a part of output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """US dollars per million tokens. A kind without its own price costs what its whole costs."""

    input: Decimal = ZERO
    output: Decimal = ZERO
    cached_input: Decimal | None = None

    def cost(self, usage: Usage) -> Decimal:
        """The settled cost of a usage: cached tokens are counted once, at their own price."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        total = (
            self.input * (usage.input_tokens - cached)
            + cached_price * cached
            + self.output * usage.output_tokens
        )
        return settle(total / TOKENS_PER_MILLION)


def usage_from_openai(document: Any) -> Usage | None:
    """Reads the `usage` member of a chat completion or its last chunk; None if it has none.

    Members that are not whole numbers ≥ 0 are taken as 0: a provider's answer is not trusted.
    """
    if not isinstance(document, dict):
        return None
    prompt_details = _member(document, "prompt_tokens_details")
    completion_details = _member(document, "completion_tokens_details")
    return Usage(
        input_tokens=_count(document, "prompt_tokens"),
        output_tokens=_count(document, "completion_tokens"),
        cached_input_tokens=_count(prompt_details, "cached_tokens"),
        reasoning_tokens=_count(completion_details, "reasoning_tokens"),
        audio_input_tokens=_count(prompt_details, "audio_tokens"),
        audio_output_tokens=_count(completion_details, "audio_tokens"),
    )


def counters(usage: Usage) -> dict[str, int]:
    """The members that every `usage` of a chat completion has."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def as_openai(usage: Usage) -> dict[str, Any]:
    """The `usage` of a chat completion, with its details where there are some."""
    document: dict[str, Any] = {**counters(usage)}
    cached, reasoning = usage.cached_input_tokens, usage.reasoning_tokens
    heard, spoken = usage.audio_input_tokens, usage.audio_output_tokens
    if cached or heard:
        document["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": heard}
    if reasoning or spoken:
        details = {"reasoning_tokens": reasoning, "audio_tokens": spoken}
        document["completion_tokens_details"] = details
    return document


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of each kind."""
    some = list(usages)
    return Usage(
        **{name: sum(getattr(one, name) for one in some) for name in Usage.__struct_fields__}
    )


def highest(one: Usage | None, other: Usage) -> Usage:
    """The larger of each kind: streams that repeat usage send running totals, not differences."""
    if one is None:
        return other
    return Usage(
        **{name: max(getattr(one, name), getattr(other, name)) for name in Usage.__struct_fields__}
    )


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _count(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    # Above 2^63 no table column could hold it: an absurd count is a broken answer, not a bill.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53:
        return value
    return 0
