"""The catalog this package brings: it loads, and its models are what their names promise."""

from importlib.resources import files

import pytest

from shared.catalog import Catalog

CATALOG = Catalog.from_toml((files("shared") / "gateway.toml").read_text())
TIERS = {"near": "TEE", "phala": "TEE", "vercel": "ZDR"}
PROMISED = sorted(name for name in CATALOG.document.models if name.partition("_")[0] in TIERS)


@pytest.mark.parametrize("name", PROMISED)
def test_the_prefix_of_a_model_is_its_provider_and_its_tier(name: str) -> None:
    model = CATALOG.document.models[name]
    prefix = name.partition("_")[0]
    assert model.tier == TIERS[prefix]
    assert {CATALOG.document.providers[route.provider].type for route in model.providers} == {
        prefix
    }


def test_the_models_of_the_documentation_are_there() -> None:
    wanted = {"near_gpt_oss_120b", "near_qwen3_30b", "phala_gpt_oss_20b", "vercel_gpt_4o"}
    assert all(CATALOG.resolve(name) for name in wanted)


def test_a_name_that_nobody_has_confirmed_cannot_be_asked_for() -> None:
    assert CATALOG.resolve("near_glm_5") is None
