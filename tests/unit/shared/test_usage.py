"""Usage and price: what was used costs exactly what the price says, rounded once."""

from decimal import Decimal

import pytest

from shared.money import from_nano, settle, to_nano
from shared.usage import Price, Usage, as_openai, highest, total, usage_from_openai


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (Price(Decimal("0.5"), Decimal("1.5")), Usage(1000, 500), "0.001250000"),
        (Price(Decimal(3), Decimal(15)), Usage(1, 1), "0.000018000"),
        # cached tokens are a part of the input: counted once, at their own price
        (Price(Decimal(3), Decimal(15), Decimal("0.3")), Usage(1000, 0, 400), "0.001920000"),
        (Price(Decimal(3), Decimal(15)), Usage(1000, 0, 400), "0.003000000"),
        # a provider that reports more cached than input is not believed
        (Price(Decimal(3), Decimal(15), Decimal(0)), Usage(10, 0, 400), "0.000000000"),
        # reasoning tokens are a part of the output
        (Price(Decimal(1), Decimal(2)), Usage(0, 100, 0, 90), "0.000200000"),
        (Price(), Usage(10**9, 10**9), "0.000000000"),
        # half a nano-dollar goes to the even neighbour
        (Price(Decimal("0.0005"), Decimal(0)), Usage(1), "0.000000000"),
        (Price(Decimal("0.0015"), Decimal(0)), Usage(1), "0.000000002"),
        (Price(Decimal("0.0025"), Decimal(0)), Usage(1), "0.000000002"),
    ],
)
def test_a_cost_is_exact_to_the_last_digit(price: Price, usage: Usage, cost: str) -> None:
    assert format(price.cost(usage), "f") == cost


def test_nano_dollars_and_back_lose_nothing() -> None:
    amount = Decimal("8999999.123456789")
    assert from_nano(to_nano(amount)) == settle(amount)


@pytest.mark.parametrize("document", [None, [], "x", 7])
def test_an_answer_without_usage_has_none(document: object) -> None:
    assert usage_from_openai(document) is None


@pytest.mark.parametrize("count", [-1, 1.5, "7", True, None, [], 1 << 60])
def test_a_count_that_is_no_whole_number_is_taken_as_zero(count: object) -> None:
    assert usage_from_openai({"prompt_tokens": count}) == Usage()


def test_all_kinds_are_read_and_details_may_be_null() -> None:
    document = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 2},
    }
    assert usage_from_openai(document) == Usage(10, 20, 3, 5, 1, 2)
    assert usage_from_openai({**document, "prompt_tokens_details": None}) == Usage(
        10, 20, 0, 5, 0, 2
    )


def test_a_sum_of_usages_reads_back_as_it_was() -> None:
    assert total([]) == Usage()
    sum_of_all = total([Usage(10, 20, 3, 5, 1, 2), Usage(1, 2)])
    assert sum_of_all == Usage(11, 22, 3, 5, 1, 2)
    assert usage_from_openai(as_openai(sum_of_all)) == sum_of_all
    assert as_openai(Usage(1, 2)).keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}


def test_repeated_usage_in_a_stream_is_a_running_total() -> None:
    assert highest(None, Usage(1, 2)) == Usage(1, 2)
    assert highest(Usage(10, 2), Usage(10, 7)) == Usage(10, 7)
