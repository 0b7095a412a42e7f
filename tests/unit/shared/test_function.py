"""Functions: who gets which variant, what a variant adds, and what a catalog may say of them."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from shared.catalog import Catalog, CatalogInvalid
from shared.errors import InvalidRequest
from shared.function import Function
from shared.ids import new_id
from shared.variant import Variant

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}


def of_weights(**weights: float) -> Function:
    return Function(variants={name: Variant(model="m", weight=w) for name, w in weights.items()})


def test_variants_are_chosen_by_their_weights() -> None:
    function = of_weights(often=3, seldom=1, never=0)
    counts = Counter(function.choose("f", new_id()) for _ in range(8000))
    assert set(counts) == {"often", "seldom"}
    assert counts["often"] / 8000 == pytest.approx(0.75, abs=0.03)


def test_an_episode_keeps_its_variant() -> None:
    function = of_weights(a=1, b=1, c=1)
    for _ in range(50):
        episode = new_id()
        assert len({function.choose("f", episode) for _ in range(5)}) == 1


def test_each_function_draws_for_itself() -> None:
    function = of_weights(a=1, b=1)
    episodes = [new_id() for _ in range(200)]
    same = sum(function.choose("f", e) == function.choose("g", e) for e in episodes)
    assert 60 < same < 140


def test_the_fallbacks_follow_the_chosen_one() -> None:
    function = msgspec.structs.replace(of_weights(a=1, b=1, c=1), fallback=("c", "a"))
    assert function.in_order("b") == ["b", "c", "a"]
    assert function.in_order("a") == ["a", "c"]


def test_a_variant_stands_in_for_what_the_request_leaves_out() -> None:
    variant = Variant(model="m", temperature=0.5, max_tokens=9, seed=1, stop=["x"])
    asked = {**ASKED, "temperature": 0.1, "seed": None}
    assert variant.applied(asked, "f") == {
        **ASKED, "temperature": 0.1, "seed": 1, "max_tokens": 9, "stop": ["x"],
    }  # fmt: skip


def test_a_cap_of_the_request_by_its_other_name_counts_too() -> None:
    asked = {**ASKED, "max_completion_tokens": 3}
    assert Variant(model="m", max_tokens=9).applied(asked, "f") == asked


def test_a_system_text_comes_before_the_requests_messages() -> None:
    document = Variant(model="m", system="Be kind.").applied(ASKED, "f")
    assert document["messages"] == [{"role": "system", "content": "Be kind."}, *ASKED["messages"]]
    assert len(ASKED["messages"]) == 1, "the request itself is left alone"


def test_templates_render_the_requests_messages() -> None:
    variant = Variant(model="m", system="Be kind.", user_template="Weather in {{ city }}?")
    part = {"type": "text", "ollm::arguments": {"city": "Oslo"}}
    asked = {"messages": [{"role": "user", "content": [part]}]}
    assert variant.applied(asked, "f")["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather in Oslo?"},
    ]
    with pytest.raises(InvalidRequest, match="has no place"):
        variant.applied(ASKED, "f")


def test_a_schema_is_asked_for_where_the_request_has_no_format() -> None:
    variant = Variant(model="m", json_schema='{"type":"object","x":1.5}')
    sent = msgspec.json.decode(msgspec.json.encode(variant.applied(ASKED, "f")))
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "f", "schema": {"type": "object", "x": 1.5}, "strict": True},
    }
    asked = {**ASKED, "response_format": {"type": "text"}}
    assert variant.applied(asked, "f") == asked


CATALOG = """
[providers.p]
base_url = "https://p/v1"
[providers.near]
type = "near"
base_url = "https://n/v1"
[models.m]
providers = [{ provider = "p", upstream_model = "m" }]
[models.tee]
tier = "TEE"
providers = [{ provider = "near", upstream_model = "m" }]
"""


def test_a_function_is_found_by_its_prefix_alone() -> None:
    catalog = Catalog.from_toml(CATALOG + '[functions.f.variants.v]\nmodel = "m"\n')
    found = catalog.function("ollm::function_name::f")
    assert found is not None
    assert found[0] == "f"
    assert catalog.function("f") is None
    assert catalog.function("ollm::function_name::g") is None
    assert Catalog.from_json(catalog.to_json()).hash == catalog.hash


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[functions.f]\nvariants = {}\n", "at least one variant"),
        ('[functions.f.variants.v]\nmodel = "nobody"\n', "no model 'nobody'"),
        ('[functions.f.variants.v]\nmodel = "m"\nweight = 0\n', "weights"),
        ('[functions.f.variants.v]\nmodel = "m"\nweight = -1\n', "weights"),
        ('[functions.f]\nfallback = ["w"]\n[functions.f.variants.v]\nmodel = "m"\n', "'w'"),
        ('[functions.f.variants.v]\nmodel = "m"\njson_schema = "{"\n', "json_schema"),
        ('[functions.f.variants.v]\nmodel = "m"\njson_schema = "[]"\n', "json_schema"),
        ('[functions.f.variants.v]\nmodel = "m"\nunheard_of = 1\n', "unheard_of"),
        (
            '[functions.f.variants.v]\nmodel = "m"\nsystem = "x"\nsystem_template = "y"\n',
            "functions.f: variants.v.system_template: there is a 'system'",
        ),
        (
            '[functions.f.variants.v]\nmodel = "m"\nuser_template = """\n{{ x }}\n{% if %}"""\n',
            "functions.f: variants.v.user_template: line 2",
        ),
        (
            '[functions.f.variants.v]\nmodel = "m"\n[functions.f.variants.w]\nmodel = "tee"\n',
            "several tiers",
        ),
    ],
)
def test_a_function_that_cannot_work_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(CatalogInvalid, match=said):
        Catalog.from_toml(CATALOG + wrong)
