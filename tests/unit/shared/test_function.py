"""Functions: who gets which variant, what a variant adds, and what a catalog may say of them."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.document import LANE_COUNT, ROWS_PER_JOB
from shared.errors import InvalidRequest
from shared.function import Function
from shared.ids import new_id
from shared.timeouts import Retries
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


PANEL = (
    CATALOG
    + """
[models.n]
providers = [{ provider = "p", upstream_model = "n" }]
[functions.f.variants.v]
model = "m"
[functions.f.variants.w]
type = "best_of_n"
candidates = ["v", "v"]
evaluator = { model = "n", temperature = 0.5 }
"""
)


def test_a_panel_asks_its_candidates_and_then_its_evaluator() -> None:
    function = Catalog.from_toml(PANEL).document.functions["f"]
    assert [one.model for one in function.asked_by("w")] == ["m", "m", "n"]
    assert [one.model for one in function.asked_by("v")] == ["m"]
    evaluator = function.variants["w"].aggregator
    assert evaluator is not None
    assert evaluator.as_variant() == Variant(model="n", temperature=0.5)


PANEL_OF = '[functions.f.variants.v]\nmodel = "m"\n[functions.f.variants.w]\n'
EVALUATOR = 'evaluator = { model = "m" }\n'
BEST = 'type = "best_of_n"\ncandidates = ["v"]\n'


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (BEST, "variants.w.evaluator: is needed"),
        (BEST + EVALUATOR + 'fuser = { model = "m" }\n', "variants.w.fuser: means nothing"),
        (BEST + 'evaluator = { model = "x" }\n', "variants.w: there is no model 'x'"),
        (BEST + 'evaluator = { model = "tee" }\n', "several tiers"),
        (BEST + EVALUATOR + 'model = "m"\n', "variants.w.model: means nothing"),
        (BEST + EVALUATOR + 'user_template = "x"\n', "variants.w.user_template: means nothing"),
        (BEST + EVALUATOR + "candidate_timeout = 0\n", "candidate_timeout: must be above 0"),
        ('type = "best_of_n"\ncandidates = []\n' + EVALUATOR, "candidates: must be 1 to 8"),
        (f'type = "best_of_n"\ncandidates = {["v"] * 9}\n' + EVALUATOR, "must be 1 to 8"),
        ('type = "best_of_n"\ncandidates = ["x"]\n' + EVALUATOR, "candidates: there is no variant"),
        ('type = "best_of_n"\ncandidates = ["w"]\n' + EVALUATOR, "'w' is of type 'best_of_n'"),
        ('type = "mixture_of_n"\ncandidates = ["v"]\n', "variants.w.fuser: is needed"),
        ('model = "m"\ncandidates = ["v"]\n', "variants.w.candidates: means nothing"),
        ('type = "another"\n', "type"),
        (BEST + EVALUATOR + '[functions.f]\nfallback = ["w"]\n', "fallback: 'w' is of type"),
    ],
)
def test_a_panel_that_cannot_work_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(CatalogInvalid, match=said):
        Catalog.from_toml(CATALOG + PANEL_OF + wrong)


def test_admission_leaves_room_for_the_rows_of_panels() -> None:
    plain, panel = Catalog.from_toml(CATALOG), Catalog.from_toml(PANEL)
    assert plain.queue == plain.document.queue
    calls = 3 * Retries().attempts  # two candidates and the evaluator
    lanes = panel.document.queue.lane_capacity * LANE_COUNT
    room = panel.document.queue.max_spend_backlog - panel.queue.admit_below_backlog
    assert room == lanes * calls > lanes * ROWS_PER_JOB


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[queue]\nmax_spend_backlog = 240000\n", "must be above 240000"),
        ("[providers.p.retries]\nattempts = 11\n", "functions.f.variants.w: .* 33 calls"),
    ],
)
def test_a_panel_whose_rows_have_no_room_is_refused(more: str, said: str) -> None:
    with pytest.raises(CatalogInvalid, match=said):
        Catalog.from_toml(PANEL + more)


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
