"""A panel: who is asked where a variant is `best_of_n` or `mixture_of_n`, ready to be called."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from shared.errors import NotFound, Overloaded
from shared.job import JobHeader
from shared.variant import Variant
from workers.inference.routing import Route, Routing


class Candidacy(msgspec.Struct, frozen=True):
    """One candidate's part."""

    variant: Variant
    routes: Sequence[Route]
    """Empty where no provider of its model is switched on: the others can do without it."""


class Panel(msgspec.Struct, frozen=True):
    type: Literal["best_of_n", "mixture_of_n"]
    function: str
    candidates: Sequence[Candidacy]
    aggregator: Candidacy
    timeout_seconds: float
    """What the candidates have together, and the evaluator after them."""


def panel_of(routing: Routing, header: JobHeader) -> Panel | None:
    """None where the job's variant is no panel."""
    function = routing.catalog.document.functions[header.function]
    chosen = function.variants[header.variant]
    if chosen.type == "chat_completion" or chosen.aggregator is None:
        return None

    def candidacy(name: str, variant: Variant) -> Candidacy:
        try:
            return Candidacy(variant, routing.variant_routes(header.function, name, variant))
        except (NotFound, Overloaded):
            return Candidacy(variant, ())

    return Panel(
        type=chosen.type,
        function=header.function,
        candidates=[candidacy(name, function.variants[name]) for name in chosen.candidates],
        aggregator=candidacy(header.variant, chosen.aggregator.as_variant()),
        timeout_seconds=chosen.candidate_timeout,
    )
