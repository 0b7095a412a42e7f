"""Providers' model lists: each in its own shape and unit, and nothing of them taken on trust."""

import json
from decimal import Decimal
from typing import Any

import pytest

from api.cli.model_list import MAX_MODELS, Entry, ListInvalid, read_list
from shared.document import ProviderType


def read(kind: ProviderType, **members: Any) -> Entry:
    body = json.dumps({"object": "list", "data": [{"id": "m", **members}]}).encode()
    return read_list(body, kind).entries["m"]


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("near", {"pricing": {"input": 0.15000000000000002, "output": 3}}),
        (
            "near",
            {
                "inputCostPerToken": {"amount": 150, "scale": 9, "currency": "USD"},
                "outputCostPerToken": {"amount": 3000, "scale": 9, "currency": "USD"},
            },
        ),
        ("phala", {"pricing": {"prompt": "0.00000015", "completion": "0.000003"}}),
        ("vercel", {"pricing": {"input": "1.5e-7", "output": "0.000003"}}),
        ("openai", {"pricing": {"prompt": "0.00000015", "completion": "0.000003"}}),
    ],
)
def test_a_price_is_per_million_tokens_whatever_its_unit_was(
    kind: ProviderType, members: dict[str, Any]
) -> None:
    entry = read(kind, **members)
    assert entry.prices == {"input": Decimal("0.15"), "output": Decimal(3)}
    assert entry.unusable == ()


def test_limits_cached_prices_and_modalities_are_read_where_they_are_given() -> None:
    pricing = {"input": "0.000001", "output": "0", "input_cache_read": "0.0000001"}
    entry = read("vercel", pricing=pricing, context_window=8192, max_tokens=0)
    assert entry.prices == {
        "input": Decimal(1), "output": Decimal(0), "cached_input": Decimal("0.1"),
    }  # fmt: skip
    assert entry.limits == {"max_input_tokens": 8192}
    words = {"inputModalities": ["text", "image"], "outputModalities": ["embeddings"]}
    assert read("near", architecture=words).modalities == {
        "input_modalities": ("text", "image"),
        "output_modalities": ("embedding",),
    }


def test_an_entry_that_says_nothing_beside_its_name_is_one() -> None:
    assert read("openai", object="model", created=1, owned_by="x") == Entry({}, {}, {}, ())


@pytest.mark.parametrize(
    "price",
    [
        "-0.000001", "NaN", "Infinity", "1e9", "0.15", "1.5e-13", "", "free", True, [], 1e308, -1,
        {"amount": 1, "scale": 6, "currency": "EUR"}, {"amount": 1, "currency": "USD"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_price_that_cannot_be_one_is_left_out_and_named(price: object) -> None:
    entry = read("vercel", pricing={"input": price, "output": "0.000001"})
    assert entry.prices == {"output": Decimal(1)}
    assert entry.unusable == ("price.input",)


def test_a_price_whose_unit_is_not_known_is_no_price() -> None:
    entry = read("openai", pricing={"input": 0.2, "output": 0.2})
    assert entry.prices == {}
    assert entry.unusable == ("price.input", "price.output")


@pytest.mark.parametrize("limit", [-1, 1.5, "8192", True, 10**9])
def test_a_limit_that_cannot_be_one_is_left_out_and_named(limit: object) -> None:
    entry = read("near", context_length=limit)
    assert (entry.limits, entry.unusable) == ({}, ("max_input_tokens",))


@pytest.mark.parametrize("words", ["text", ["text\x1b[2J"], ["text", 1], ["a"] * 17, ['"]']])
def test_a_modality_that_cannot_be_one_is_left_out_and_named(words: object) -> None:
    entry = read("phala", input_modalities=words)
    assert (entry.modalities, entry.unusable) == ({}, ("input_modalities",))


def test_models_without_a_name_that_can_be_shown_are_counted() -> None:
    data = [{"id": "m"}, {"id": "\x1b[2J"}, {"id": 7}, {}, "m", {"id": "m" * 300}, {"id": "\ud800"}]
    models = read_list(json.dumps({"data": data}).encode(), "openai")
    assert (set(models.entries), models.unusable) == ({"m"}, 6)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"data": {}}', b'{"data": []}', b'{"data": [{"id": NaN}]}',
        b"\xff\xfe", b"[" * 100_000, b'{"data": [{"id": "m", "x": ' + b"9" * 10_000 + b"}]}",
        json.dumps({"data": [{"id": "m"}] * (MAX_MODELS + 1)}).encode(),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_model_list_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(ListInvalid, match=r"^its (list|answer) [a-zA-Z0-9 ]+$"):
        read_list(body, "openai")
