"""A provider's own model list, read with distrust: names, prices and limits, each within bounds.

Where the shapes come from: NEAR's from nearai/cloud-api (`crates/api/src/models.rs`), RedPill's and
Vercel's from their public lists. OpenAI's has names only; what is compatible with it often adds the
members of OpenRouter's.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from shared.document import ProviderType
from shared.money import NANO_USD, ZERO

T = TypeVar("T")

MAX_MODELS = 10_000
MAX_NAME_CHARACTERS = 256
MAX_TOKENS = 100_000_000
LEAST_PRICE, MOST_PRICE = Decimal("0.0001"), Decimal(10_000)
"""USD per million tokens. Beyond them the list means another unit than we know of, and an amount
that is wrong by six digits must not become a price."""
AMOUNT = re.compile(r"\d{1,15}(\.\d{1,30})?([eE]-?\d{1,2})?", re.ASCII)
MODALITY = re.compile(r"[a-z][a-z0-9_-]{0,31}")
MAX_MODALITIES = 16
OUR_WORD = {"embeddings": "embedding"}

TOKEN, MILLION = Decimal(10**6), Decimal(1)
"""What an amount is multiplied with, by what it is the price of, to be one of a million tokens."""
OPENROUTER = (
    ("input", "pricing.prompt", TOKEN),
    ("output", "pricing.completion", TOKEN),
    ("cached_input", "pricing.input_cache_read", TOKEN),
)
PRICES: Mapping[ProviderType, tuple[tuple[str, str, Decimal | None], ...]] = {
    # Some compatible lists have prices per token under these two names, some per million.
    "openai": (*OPENROUTER, ("input", "pricing.input", None), ("output", "pricing.output", None)),
    "phala": OPENROUTER,
    "vercel": (
        ("input", "pricing.input", TOKEN),
        ("output", "pricing.output", TOKEN),
        ("cached_input", "pricing.input_cache_read", TOKEN),
    ),
    "near": (
        ("input", "pricing.input", MILLION),
        ("output", "pricing.output", MILLION),
        ("input", "inputCostPerToken", TOKEN),
        ("output", "outputCostPerToken", TOKEN),
        ("cached_input", "cacheReadCostPerToken", TOKEN),
    ),
}
"""By type: our name, where the list has it, and its unit; None where that is not known."""
LIMITS = (
    ("max_input_tokens", "context_window"),
    ("max_input_tokens", "context_length"),
    ("max_input_tokens", "metadata.contextLength"),
    ("max_input_tokens", "max_model_len"),
    ("max_output_tokens", "max_tokens"),
    ("max_output_tokens", "max_output_tokens"),
    ("max_output_tokens", "max_completion_tokens"),
    ("max_output_tokens", "top_provider.max_completion_tokens"),
)
MODALITIES = (
    ("input_modalities", "input_modalities"),
    ("input_modalities", "architecture.input_modalities"),
    ("input_modalities", "architecture.inputModalities"),
    ("output_modalities", "output_modalities"),
    ("output_modalities", "architecture.output_modalities"),
    ("output_modalities", "architecture.outputModalities"),
)


class ListInvalid(Exception):
    """What came is not a model list; the message says why, and quotes nothing of it."""


class _Unusable(Exception):
    """A member is there, and not what it should be."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a list says of one model. What it does not say is not there."""

    prices: Mapping[str, Decimal]
    """USD per million tokens, by the names of a catalog's price."""
    limits: Mapping[str, int]
    modalities: Mapping[str, tuple[str, ...]]
    unusable: tuple[str, ...]
    """Members of ours that it does say something about, which cannot be used."""


@dataclass(frozen=True, slots=True)
class ModelList:
    entries: Mapping[str, Entry]
    unusable: int
    """Entries without a name that could be shown or compared."""


def read_list(body: bytes, kind: ProviderType) -> ModelList:
    """Raises ListInvalid."""
    found = _entries(_decoded(body))
    named = [(_name(entry), entry) for entry in found]
    entries: dict[str, Entry] = {}
    for name, entry in named:
        if name is not None:
            entries.setdefault(name, _entry(entry, kind))
    if not entries:
        raise ListInvalid("its list names no model")
    return ModelList(entries, sum(name is None for name, _ in named))


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError, ArithmeticError):
        raise ListInvalid("its list is not JSON") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _entries(document: Any) -> list[Any]:
    """OpenAI's `data`; NEAR's longer list has `models`."""
    members = document if isinstance(document, dict) else {}
    found = members.get("data", members.get("models"))
    if not isinstance(found, list):
        raise ListInvalid("its answer is not a list of models")
    if len(found) > MAX_MODELS:
        raise ListInvalid(f"its list has more than {MAX_MODELS} models")
    return found


def _name(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("id", entry.get("modelId"))
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        return None
    return name if name.isprintable() else None


def _entry(entry: dict[str, Any], kind: ProviderType) -> Entry:
    unusable: dict[str, None] = {}
    prices = _taken(entry, PRICES[kind], _price, unusable)
    limits = _taken(entry, LIMITS, _tokens, unusable)
    modalities = _taken(entry, MODALITIES, _words, unusable)
    return Entry(prices, limits, modalities, tuple(unusable))


def _taken(
    entry: dict[str, Any],
    members: Iterable[tuple[Any, ...]],
    read: Callable[..., T | None],
    unusable: dict[str, None],
) -> dict[str, T]:
    """By our names, what the first place that says anything says."""
    taken: dict[str, T] = {}
    for name, path, *unit in members:
        value = _at(entry, path)
        if name in taken or value is None:
            continue
        try:
            said = read(value, *unit)
        except _Unusable:
            unusable[name if read is not _price else f"price.{name}"] = None
        else:
            if said is not None:
                taken[name] = said
    return taken


def _at(entry: dict[str, Any], path: str) -> Any:
    value: Any = entry
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _price(value: Any, unit: Decimal | None) -> Decimal:
    if unit is None:
        raise _Unusable
    amount = _amount(value)
    if not amount:
        return ZERO
    if not -40 < amount.adjusted() < 40:  # what can be multiplied without overflow
        raise _Unusable
    price = amount * unit
    if not LEAST_PRICE <= price <= MOST_PRICE:
        raise _Unusable
    return price.quantize(NANO_USD)  # lists made from binary fractions have a tail


def _amount(value: Any) -> Decimal:
    """A number, a number in a string, or NEAR's {amount, scale, currency}."""
    if isinstance(value, dict):
        scale = value.get("scale")
        if value.get("currency") != "USD" or type(scale) is not int or not 0 <= scale <= 30:
            raise _Unusable
        return _amount(value.get("amount")).scaleb(-scale)
    if type(value) is int and 0 <= value < 10**15:
        return Decimal(value)
    if isinstance(value, Decimal) and value.is_finite() and value >= 0:
        return value
    if isinstance(value, str) and AMOUNT.fullmatch(value):
        return Decimal(value)
    raise _Unusable


def _tokens(value: Any) -> int | None:
    """0 is how lists say that a limit does not apply."""
    if value == 0:
        return None
    if type(value) is not int or not 0 < value <= MAX_TOKENS:
        raise _Unusable
    return value


def _words(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > MAX_MODALITIES:
        raise _Unusable
    if not all(isinstance(word, str) and MODALITY.fullmatch(word) for word in value):
        raise _Unusable
    words: list[str] = value
    return tuple(dict.fromkeys(OUR_WORD.get(word, word) for word in words)) or None
