"""What a usage costs at a price: computed by hand, exact to the last digit."""

from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest

from shared.price import Price, faults
from shared.usage import Usage


class Case(NamedTuple):
    name: str
    price: dict[str, Any]
    usage: dict[str, Any]
    cost: str
    service_tier: str = ""


CASES = [
    Case("nothing used", {"input": "3", "output": "15"}, {}, "0.000000000"),
    Case("one token in", {"input": "3", "output": "15"}, {"input_tokens": 1}, "0.000003000"),
    Case("one token out", {"input": "3", "output": "15"}, {"output_tokens": 1}, "0.000015000"),
    Case(
        "in and out",
        {"input": "0.5", "output": "1.5"},
        {"input_tokens": 1000, "output_tokens": 500},
        "0.001250000",
    ),
    Case(
        "a fraction of a cent",
        {"input": "0.15", "output": "0.6"},
        {"input_tokens": 123, "output_tokens": 456},
        "0.000292050",
    ),
    Case(
        "a million of each",
        {"input": "2.5", "output": "10"},
        {"input_tokens": 1_000_000, "output_tokens": 1_000_000},
        "12.500000000",
    ),
    Case(
        "a thousand million",
        {"input": "2.5", "output": "10"},
        {"input_tokens": 1_000_000_000},
        "2500.000000000",
    ),
    Case(
        "only input priced",
        {"input": "0.02"},
        {"input_tokens": 8191, "output_tokens": 7},
        "0.000163820",
    ),
    Case(
        "only output priced",
        {"output": "4.4"},
        {"input_tokens": 99, "output_tokens": 321},
        "0.001412400",
    ),
    Case(
        "free", {}, {"input_tokens": 1_000_000_000, "output_tokens": 1_000_000_000}, "0.000000000"
    ),
    Case(
        "zero said outright",
        {"input": "0", "output": "0"},
        {"input_tokens": 5, "output_tokens": 5},
        "0.000000000",
    ),
    Case(
        "twelve digits after the point",
        {"input": "0.000000000001", "output": "0"},
        {"input_tokens": 1_000_000_000_000},
        "0.000001000",
    ),
    Case("half goes to even, down", {"input": "0.0005"}, {"input_tokens": 1}, "0.000000000"),
    Case("half goes to even, up", {"input": "0.0015"}, {"input_tokens": 1}, "0.000000002"),
    Case("half goes to even, down again", {"input": "0.0025"}, {"input_tokens": 1}, "0.000000002"),
    Case("just above half", {"input": "0.000501"}, {"input_tokens": 1}, "0.000000001"),
    Case("just below half", {"input": "0.000499"}, {"input_tokens": 1}, "0.000000000"),
    Case(
        "rounded once, not per kind",
        {"input": "0.0004", "output": "0.0004"},
        {"input_tokens": 1, "output_tokens": 1},
        "0.000000001",
    ),
    Case("three thirds", {"input": "0.333333333333"}, {"input_tokens": 3}, "0.000001000"),
    Case(
        "some cached",
        {"input": "3", "output": "15", "cached_input": "0.3"},
        {"input_tokens": 1000, "cached_input_tokens": 400},
        "0.001920000",
    ),
    Case(
        "all cached",
        {"input": "3", "cached_input": "0.3"},
        {"input_tokens": 1000, "cached_input_tokens": 1000},
        "0.000300000",
    ),
    Case(
        "cached for nothing",
        {"input": "3", "cached_input": "0"},
        {"input_tokens": 1000, "cached_input_tokens": 400},
        "0.001800000",
    ),
    Case(
        "cached without a price of its own",
        {"input": "3"},
        {"input_tokens": 1000, "cached_input_tokens": 400},
        "0.003000000",
    ),
    Case(
        "more cached than there was",
        {"input": "3", "cached_input": "0.3"},
        {"input_tokens": 10, "cached_input_tokens": 400},
        "0.000003000",
    ),
    Case(
        "cached and answered",
        {"input": "2.5", "output": "10", "cached_input": "1.25"},
        {"input_tokens": 2048, "cached_input_tokens": 1920, "output_tokens": 300},
        "0.005720000",
    ),
    Case(
        "written to the cache",
        {"input": "3", "cache_write": "3.75"},
        {"input_tokens": 1000, "cache_write_tokens": 800},
        "0.003600000",
    ),
    Case(
        "read and written",
        {"input": "3", "cached_input": "0.3", "cache_write": "3.75"},
        {"input_tokens": 2000, "cached_input_tokens": 1200, "cache_write_tokens": 700},
        "0.003285000",
    ),
    Case(
        "written without a price of its own",
        {"input": "3", "cached_input": "0.3"},
        {"input_tokens": 2000, "cached_input_tokens": 1200, "cache_write_tokens": 700},
        "0.002760000",
    ),
    Case(
        "more read and written than there was",
        {"input": "3", "cached_input": "0.3", "cache_write": "3.75"},
        {"input_tokens": 1000, "cached_input_tokens": 900, "cache_write_tokens": 900},
        "0.000645000",
    ),
    Case(
        "reasoning is a part of the output",
        {"input": "1", "output": "2"},
        {"output_tokens": 100, "reasoning_tokens": 90},
        "0.000200000",
    ),
    Case(
        "reasoning at its own price",
        {"output": "2", "reasoning": "3"},
        {"output_tokens": 100, "reasoning_tokens": 90},
        "0.000290000",
    ),
    Case(
        "reasoning for nothing",
        {"output": "2", "reasoning": "0"},
        {"output_tokens": 100, "reasoning_tokens": 90},
        "0.000020000",
    ),
    Case(
        "all of it reasoning",
        {"output": "8", "reasoning": "4"},
        {"output_tokens": 512, "reasoning_tokens": 512},
        "0.002048000",
    ),
    Case(
        "more reasoning than output",
        {"output": "2", "reasoning": "3"},
        {"output_tokens": 10, "reasoning_tokens": 90},
        "0.000030000",
    ),
    Case(
        "reasoning of an answer without output",
        {"output": "2", "reasoning": "3"},
        {"input_tokens": 4, "reasoning_tokens": 5},
        "0.000000000",
    ),
    Case(
        "audio in",
        {"input": "2.5", "audio_input": "40"},
        {"input_tokens": 300, "audio_input_tokens": 250},
        "0.010125000",
    ),
    Case(
        "audio out",
        {"output": "10", "audio_output": "80"},
        {"output_tokens": 200, "audio_output_tokens": 150},
        "0.012500000",
    ),
    Case(
        "audio both ways",
        {"input": "2.5", "output": "10", "audio_input": "40", "audio_output": "80"},
        {
            "input_tokens": 300,
            "audio_input_tokens": 250,
            "output_tokens": 200,
            "audio_output_tokens": 150,
        },
        "0.022625000",
    ),
    Case(
        "audio without a price of its own",
        {"input": "2.5", "output": "10"},
        {
            "input_tokens": 300,
            "audio_input_tokens": 250,
            "output_tokens": 200,
            "audio_output_tokens": 150,
        },
        "0.002750000",
    ),
    Case(
        "cached text and audio",
        {"input": "2.5", "cached_input": "1.25", "audio_input": "40"},
        {"input_tokens": 1000, "cached_input_tokens": 600, "audio_input_tokens": 100},
        "0.005500000",
    ),
    Case(
        "cached audio is counted once",
        {"input": "2.5", "cached_input": "1.25", "audio_input": "40"},
        {"input_tokens": 1000, "cached_input_tokens": 950, "audio_input_tokens": 100},
        "0.003187500",
    ),
    Case(
        "reasoning and audio out",
        {"output": "10", "reasoning": "12", "audio_output": "80"},
        {"output_tokens": 100, "reasoning_tokens": 30, "audio_output_tokens": 50},
        "0.004560000",
    ),
    Case(
        "at the bound",
        {
            "input": "1.25",
            "output": "10",
            "cached_input": "0.125",
            "long_context": [
                {"above_tokens": 200_000, "input": "2.5", "output": "15", "cached_input": "0.25"}
            ],
        },
        {"input_tokens": 200_000, "output_tokens": 1000},
        "0.260000000",
    ),
    Case(
        "one above the bound: all of it",
        {
            "input": "1.25",
            "output": "10",
            "cached_input": "0.125",
            "long_context": [
                {"above_tokens": 200_000, "input": "2.5", "output": "15", "cached_input": "0.25"}
            ],
        },
        {"input_tokens": 200_001, "output_tokens": 1000},
        "0.515002500",
    ),
    Case(
        "cached counts towards the bound",
        {
            "input": "1.25",
            "output": "10",
            "cached_input": "0.125",
            "long_context": [
                {"above_tokens": 200_000, "input": "2.5", "output": "15", "cached_input": "0.25"}
            ],
        },
        {"input_tokens": 300_000, "cached_input_tokens": 250_000, "output_tokens": 10},
        "0.187650000",
    ),
    Case(
        "output does not",
        {
            "input": "1.25",
            "output": "10",
            "cached_input": "0.125",
            "long_context": [
                {"above_tokens": 200_000, "input": "2.5", "output": "15", "cached_input": "0.25"}
            ],
        },
        {"input_tokens": 100_000, "output_tokens": 250_000},
        "2.625000000",
    ),
    Case(
        "between two bounds",
        {
            "input": "1",
            "output": "2",
            "long_context": [
                {"above_tokens": 100, "input": "3", "output": "4"},
                {"above_tokens": 1000, "input": "5", "output": "6"},
            ],
        },
        {"input_tokens": 500, "output_tokens": 10},
        "0.001540000",
    ),
    Case(
        "above two bounds",
        {
            "input": "1",
            "output": "2",
            "long_context": [
                {"above_tokens": 100, "input": "3", "output": "4"},
                {"above_tokens": 1000, "input": "5", "output": "6"},
            ],
        },
        {"input_tokens": 1500, "output_tokens": 10},
        "0.007560000",
    ),
    Case(
        "below two bounds",
        {
            "input": "1",
            "output": "2",
            "long_context": [
                {"above_tokens": 100, "input": "3", "output": "4"},
                {"above_tokens": 1000, "input": "5", "output": "6"},
            ],
        },
        {"input_tokens": 50, "output_tokens": 10},
        "0.000070000",
    ),
    Case(
        "long and cached without a price of its own",
        {
            "input": "1",
            "cached_input": "0.1",
            "long_context": [{"above_tokens": 10, "input": "2", "output": "2"}],
        },
        {"input_tokens": 20, "cached_input_tokens": 5},
        "0.000040000",
    ),
    Case(
        "an image by size and quality",
        {"image": {"1024x1024/hd": "0.08", "1024x1024": "0.04", "": "0.12"}},
        {"images": 3, "image_kind": "1024x1024/hd"},
        "0.240000000",
    ),
    Case(
        "an image by size",
        {"image": {"1024x1024/hd": "0.08", "1024x1024": "0.04", "": "0.12"}},
        {"images": 2, "image_kind": "1024x1024/standard"},
        "0.080000000",
    ),
    Case(
        "any other image",
        {"image": {"1024x1024/hd": "0.08", "1024x1024": "0.04", "": "0.12"}},
        {"images": 1, "image_kind": "1792x1024/hd"},
        "0.120000000",
    ),
    Case(
        "an image without a price",
        {"image": {"256x256": "0.01"}},
        {"images": 5, "image_kind": "512x512"},
        "0.000000000",
    ),
    Case(
        "an image by tokens too",
        {"input": "5", "output": "40", "image": {"": "0.01"}},
        {"input_tokens": 100, "output_tokens": 4160, "images": 1},
        "0.176900000",
    ),
    Case("seconds", {"second": "0.0001"}, {"seconds": "9"}, "0.000900000"),
    Case("parts of seconds", {"second": "0.0001"}, {"seconds": "8.47"}, "0.000847000"),
    Case("a minute of six thousandths", {"second": "0.0001"}, {"seconds": "60"}, "0.006000000"),
    Case("pages", {"page": "0.001"}, {"pages": 37}, "0.037000000"),
    Case("characters", {"character": "15"}, {"characters": 4096}, "0.061440000"),
    Case(
        "tool calls",
        {"input": "3", "tool_call": "0.01"},
        {"input_tokens": 10, "tool_calls": 2},
        "0.020030000",
    ),
    Case("a request", {"request": "0.005"}, {}, "0.005000000"),
    Case(
        "a request and its tokens",
        {"input": "1", "output": "1", "request": "0.005"},
        {"input_tokens": 5, "output_tokens": 5},
        "0.005010000",
    ),
    Case(
        "everything at once",
        {
            "input": "1",
            "output": "2",
            "cached_input": "0.1",
            "audio_input": "10",
            "reasoning": "3",
            "image": {"": "0.5"},
            "second": "0.25",
            "page": "0.125",
            "character": "8",
            "request": "0.0625",
            "tool_call": "0.01",
        },
        {
            "input_tokens": 1000,
            "cached_input_tokens": 100,
            "audio_input_tokens": 50,
            "output_tokens": 500,
            "reasoning_tokens": 200,
            "images": 2,
            "seconds": "4",
            "pages": 3,
            "characters": 1000,
            "tool_calls": 7,
        },
        "2.518060000",
    ),
    Case(
        "no tier said",
        {"input": "2", "output": "8", "service_tiers": {"priority": "1.7", "flex": "0.5"}},
        {"input_tokens": 100, "output_tokens": 100},
        "0.001000000",
    ),
    Case(
        "priority",
        {"input": "2", "output": "8", "service_tiers": {"priority": "1.7", "flex": "0.5"}},
        {"input_tokens": 100, "output_tokens": 100},
        "0.001700000",
        "priority",
    ),
    Case(
        "flex",
        {"input": "2", "output": "8", "service_tiers": {"priority": "1.7", "flex": "0.5"}},
        {"input_tokens": 100, "output_tokens": 100},
        "0.000500000",
        "flex",
    ),
    Case(
        "a tier without a multiplier",
        {"input": "2", "output": "8", "service_tiers": {"priority": "1.7", "flex": "0.5"}},
        {"input_tokens": 100, "output_tokens": 100},
        "0.001000000",
        "default",
    ),
    Case(
        "flex rounds once",
        {"input": "0.001", "service_tiers": {"flex": "0.5"}},
        {"input_tokens": 1},
        "0.000000000",
        "flex",
    ),
    Case(
        "a tier for nothing",
        {"input": "2", "service_tiers": {"flex": "0"}},
        {"input_tokens": 100},
        "0.000000000",
        "flex",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_cost_is_exact_to_the_last_digit(case: Case) -> None:
    price, usage = msgspec.convert(case.price, Price), msgspec.convert(case.usage, Usage)
    assert format(price.cost(usage, case.service_tier), "f") == case.cost


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize(
    ("price", "is_free"),
    [
        ({}, True),
        ({"input": "0", "output": "0", "cached_input": "0"}, True),
        ({"service_tiers": {"flex": "0.5"}}, True),
        ({"output": "0.1"}, False),
        ({"request": "0.1"}, False),
        ({"image": {"": "0.1"}}, False),
        ({"long_context": [{"above_tokens": 9, "input": "1", "output": "0"}]}, False),
    ],
)
def test_free_is_what_can_cost_nothing(price: dict[str, Any], is_free: bool) -> None:
    assert msgspec.convert(price, Price).is_free is is_free


@pytest.mark.parametrize(
    "price",
    [
        Price(input=Decimal(-1)),
        Price(output=Decimal("NaN")),
        Price(cached_input=Decimal("Infinity")),
        Price(image={"": Decimal(-1)}),
        Price(service_tiers={"flex": Decimal(-1)}),
        msgspec.convert(
            {"long_context": [{"above_tokens": 0, "input": "1", "output": "1"}]}, Price
        ),
        msgspec.convert(
            {
                "long_context": [
                    {"above_tokens": 9, "input": "1", "output": "1", "cache_write": "-1"}
                ]
            },
            Price,
        ),
    ],
    ids=repr,
)
def test_a_price_that_is_none_is_found(price: Price) -> None:
    assert faults(price)


def test_a_sound_price_has_no_faults() -> None:
    assert faults(Price(input=Decimal(1), service_tiers={"flex": Decimal("0.5")})) == []
