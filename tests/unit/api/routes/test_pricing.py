"""Which model a price is for."""

from decimal import Decimal

import pytest

from api.routes.pricing import canonical, price_of
from api.schemas.bodies import PriceBody, PriceTierBody
from shared.document import Document, Model, ModelProvider, Provider
from shared.errors import InvalidRequest
from shared.postgres.pricing import forms
from shared.price import LongContext

CATALOG = Document(
    providers={"openai": Provider(), "near": Provider(type="near")},
    models={"a:listed": Model(providers=[ModelProvider(provider="near", upstream_model="m")])},
)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("a:listed", "a:listed"),
        ("openai:m", "openai:m"),
        ("openai/m", "openai:m"),
        (" OpenAI /org/m:v", "openai:org/m:v"),
        ("near:a/b", "near:a/b"),
    ],
)
def test_a_key_is_a_name_of_the_catalog_or_provider_and_model(given, key):
    assert canonical(CATALOG, given) == key


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("m", "Invalid model format"),
        (":m", "Invalid model format"),
        ("openai:", "Invalid model format"),
        ("other:m", "'other' is not a supported provider. Supported providers: near, openai"),
        ("a/b:c", "'a' is not a supported provider"),
    ],
)
def test_any_other_key_is_refused(given, text):
    with pytest.raises(InvalidRequest, match=text):
        canonical(CATALOG, given)


def test_a_key_is_looked_for_as_given_then_with_a_colon_then_with_a_slash():
    assert forms("a/b:c") == ["a/b:c", "a:b:c"]
    assert forms("a:b/c") == ["a:b/c", "a/b/c"]
    assert forms("bare") == ["bare"]


def test_a_tier_costs_what_it_says_and_else_what_the_model_costs():
    body = PriceBody.model_validate(
        {
            "model_key": "openai:m",
            "input_price_per_million": 1,
            "output_price_per_million": 2,
            "cache_read_price_per_million": 0.5,
            "pricing_tiers": [PriceTierBody(min_input_tokens=200_001, input_price_per_million=3)],
        }
    )
    [tier] = price_of(body).long_context
    assert tier == LongContext(
        above_tokens=200_000, input=Decimal(3), output=Decimal(2), cached_input=Decimal("0.5")
    )
