"""What a request's `model` and `ollm::variant_name` select: a model, or a variant of a function."""

from collections.abc import Iterator
from typing import NamedTuple

from shared.caller import Caller
from shared.catalog import Catalog, Target
from shared.dialects.faults import bad
from shared.dialects.request import InferenceRequest
from shared.errors import NotFound, NotPermitted


class Selection(NamedTuple):
    target: Target
    total_seconds: float
    """The whole budget: of several who may answer, the most patient one's."""
    pinned_provider: str | None = None
    function: str = ""
    variant: str = ""
    """Of the function."""
    variant_is_pinned: bool = False

    def reachable(self, catalog: Catalog) -> Iterator[Target]:
        """All that may be asked, those of a function's fallbacks and panels included."""
        if not self.function:
            yield self.target
            return
        function = catalog.document.functions[self.function]
        steps = [self.variant] if self.variant_is_pinned else function.in_order(self.variant)
        for step in steps:
            for asked in function.asked_by(step):
                if (target := catalog.resolve(asked.model)) is not None:
                    yield target


def select(
    catalog: Catalog, caller: Caller, request: InferenceRequest, episode_id: str
) -> Selection:
    """Raises NotFound, NotPermitted and InvalidRequest. A key that may use a model may use it as a
    variant too; it must be one for all models that may be asked: of a panel, and of fallbacks."""
    found = catalog.function(request.model)
    if found is None:
        target = _target(catalog, caller, request.model, request.model)
        if request.has_arguments:
            raise bad("messages", "has 'ollm::arguments', which only functions take")
        pinned = _pinned(target, request.variant_name)
        return Selection(target, target.total_seconds, pinned_provider=pinned)
    name, function = found
    chosen = request.variant_name or function.choose(name, episode_id)
    if chosen not in function.variants:
        raise _no_variant("function", chosen)
    asked = function.asked_by(chosen)
    targets = [_target(catalog, caller, one.model, request.model) for one in asked]
    if not request.variant_name and caller.allowed_models is not None:
        for step in function.in_order(chosen):  # its fallbacks may answer, too
            for one in function.asked_by(step):
                _target(catalog, caller, one.model, request.model)
    total = max(
        one.timeouts.total if one.timeouts else target.total_seconds
        for target, one in zip(targets, asked, strict=True)
    )
    return Selection(
        targets[0],
        total,
        function=name,
        variant=chosen,
        variant_is_pinned=bool(request.variant_name),
    )


def _target(catalog: Catalog, caller: Caller, selector: str, asked: str) -> Target:
    target = catalog.resolve(selector)
    if target is None:
        raise NotFound(
            f"The model '{asked}' does not exist.", code="model_not_found", param="model"
        )
    if caller.allowed_models is not None and target.name not in caller.allowed_models:
        raise NotPermitted(f"This key may not use the model '{asked}'.", code="model_not_allowed")
    return target


def _pinned(target: Target, variant: str | None) -> str | None:
    """With a model, a variant is one of its providers."""
    if variant and all(variant != route.provider for route in target.model.providers):
        raise _no_variant("model", variant)
    return variant or target.pinned_provider


def _no_variant(kind: str, variant: str) -> NotFound:
    return NotFound(
        f"The {kind} has no variant '{variant}'.",
        code="model_not_found",
        param="ollm::variant_name",
    )
