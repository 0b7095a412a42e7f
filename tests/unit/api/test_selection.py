"""What a request selects: a model, a provider of it, or a variant of a function."""

from typing import Any

import pytest

from api.selection import select
from shared.caller import Caller
from shared.catalog import Catalog
from shared.dialects.request import InferenceRequest
from shared.errors import InvalidRequest, NotFound, NotPermitted
from shared.ids import new_id

CATALOG = Catalog.from_toml(
    """
[providers.p]
[providers.q]
[models.m]
providers = [{ provider = "p", upstream_model = "m" }, { provider = "q", upstream_model = "m" }]
[models.n]
providers = [{ provider = "p", upstream_model = "n" }]
[functions.f.variants.v]
model = "m"
[functions.f.variants.w]
model = "n"
weight = 0
timeouts = { total = 7 }
[functions.f.variants.best]
type = "best_of_n"
weight = 0
candidates = ["w", "v"]
evaluator = { model = "n", timeouts = { total = 900 } }
"""
)
FUNCTION = "ollm::function_name::f"


def selected(
    model: str, variant: str | None = None, allowed: set[str] | None = None, **request_: Any
) -> Any:
    caller = Caller(
        tenant="t", user="u", key_id=None,
        allowed_models=None if allowed is None else frozenset(allowed),
    )  # fmt: skip
    request = InferenceRequest(fields={}, model=model, variant_name=variant, **request_)
    return select(CATALOG, caller, request, new_id())


def test_a_function_selects_a_variant_and_its_model() -> None:
    found = selected(FUNCTION)
    assert (found.function, found.variant, found.target.name) == ("f", "v", "m")
    assert found.pinned_provider is None


def test_a_variant_by_name_is_the_only_one() -> None:
    found = selected(FUNCTION, "w")
    assert (found.variant, found.target.name) == ("w", "n")


def test_a_variants_timeouts_go_before_its_models() -> None:
    assert [selected(FUNCTION, name).total_seconds for name in ("w", "v")] == [7, 600]


def test_with_a_model_a_variant_is_one_of_its_providers() -> None:
    found = selected("m", "q")
    assert (found.function, found.pinned_provider) == ("", "q")


@pytest.mark.parametrize(
    ("model", "variant", "param"),
    [
        ("nobody", None, "model"),
        ("ollm::function_name::nobody", None, "model"),
        (FUNCTION, "nobody", "ollm::variant_name"),
        ("m", "nobody", "ollm::variant_name"),
    ],
)
def test_what_does_not_exist_is_not_found(model: str, variant: str | None, param: str) -> None:
    with pytest.raises(NotFound) as refused:
        selected(model, variant)
    assert (refused.value.code, refused.value.param) == ("model_not_found", param)


def test_a_panel_has_the_time_of_its_most_patient_and_needs_permission_for_all() -> None:
    found = selected(FUNCTION, "best", {"m", "n"})
    assert (found.variant, found.target.name, found.total_seconds) == ("best", "n", 900)
    for allowed in ({"m"}, {"n"}):
        with pytest.raises(NotPermitted):
            selected(FUNCTION, "best", allowed)


def test_only_functions_take_arguments() -> None:
    assert selected(FUNCTION, has_arguments=True).function == "f"
    with pytest.raises(InvalidRequest, match="ollm::arguments"):
        selected("m", has_arguments=True)


def test_a_key_for_some_models_gets_no_other_by_way_of_a_function() -> None:
    assert selected(FUNCTION, "w", {"n"}).target.name == "n"
    with pytest.raises(NotPermitted):
        selected(FUNCTION, "v", {"n"})
