"""A function: one task under one name, answered by one of several variants.

Which variant a request gets is decided by its episode: the share of its weight over all episodes,
and always the same one for the same episode, without anything to remember.
"""

import hashlib
from collections.abc import Iterator

import msgspec

from shared import variant as variants
from shared.variant import Aggregator, Variant

DRAWS = 2**64


class Function(msgspec.Struct, frozen=True, kw_only=True):
    variants: dict[str, Variant]
    fallback: tuple[str, ...] = ()
    """Variants tried in this order when the chosen one has failed."""
    description: str = ""

    def choose(self, name: str, episode_id: str) -> str:
        """The variant of an episode. `name` is the function's: each draws for itself."""
        digest = hashlib.sha256(f"{name}\0{episode_id}".encode()).digest()
        at = (
            int.from_bytes(digest[:8], "big")
            / DRAWS
            * sum(v.weight for v in self.variants.values())
        )
        weighted = [
            (key, one.weight) for key, one in sorted(self.variants.items()) if one.weight > 0
        ]
        for key, weight in weighted:
            at -= weight
            if at < 0:
                return key
        return weighted[-1][0]  # a rounding error past the end

    def in_order(self, chosen: str) -> list[str]:
        """The chosen variant, then its fallbacks."""
        return [chosen, *(name for name in self.fallback if name != chosen)]

    def asked_by(self, chosen: str) -> list[Variant | Aggregator]:
        """Everyone who is asked where this variant is: itself, or all of its panel."""
        variant = self.variants[chosen]
        if variant.aggregator is None:
            return [variant]
        return [*(self.variants[name] for name in variant.candidates), variant.aggregator]


def problems(function: Function) -> Iterator[str]:
    """What is wrong with it, apart from its models."""
    weights = [variant.weight for variant in function.variants.values()]
    if not weights:
        yield "at least one variant is needed"
    elif min(weights) < 0 or sum(weights) <= 0:
        yield "weights are 0 or more, and one is above 0"
    for name, variant in function.variants.items():
        for problem in variants.problems(variant):
            yield f"variants.{name}.{problem}"
        for candidate in variant.candidates:
            yield from _named(function, f"variants.{name}.candidates", candidate)
    for name in function.fallback:
        yield from _named(function, "fallback", name)


def _named(function: Function, where: str, name: str) -> Iterator[str]:
    """A panel has neither a place in a panel nor in a fallback: it would ask too many."""
    variant = function.variants.get(name)
    if variant is None:
        yield f"{where}: there is no variant {name!r}"
    elif variant.is_panel:
        yield f"{where}: {name!r} is of type {variant.type!r}"
