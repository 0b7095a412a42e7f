"""Usage, as providers tell it."""

from decimal import Decimal

import pytest

from shared.money import from_nano, settle, to_nano
from shared.usage import (
    Usage,
    as_openai,
    highest,
    total,
    usage_from_openai,
    usage_from_transcription,
)


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


@pytest.mark.parametrize(
    ("told", "output"), [(35, 25), (30, 20), (None, 20)], ids=["beside", "inside", "not told"]
)
def test_reasoning_counted_beside_the_completion_is_a_part_of_the_output(
    told: int | None, output: int
) -> None:
    details = {"reasoning_tokens": 5}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "completion_tokens_details": details}
    found = usage_from_openai({**usage, "total_tokens": told})
    assert found is not None
    assert (found.output_tokens, found.reasoning_tokens) == (output, 5)


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"type": "duration", "seconds": 9}, Usage(seconds=Decimal("9.000"))),
        ({"type": "duration", "seconds": 8.4700002}, Usage(seconds=Decimal("8.470"))),
        ({"type": "tokens", "input_tokens": 7, "output_tokens": 3}, Usage(7, 3)),
        ({"seconds": -1}, None),
        ({"seconds": "9"}, None),
        ({"seconds": 1e300}, None),
        ({"seconds": True}, None),
        ("x", None),
    ],
    ids=repr,
)
def test_a_transcription_counts_tokens_or_seconds(document: object, usage: Usage | None) -> None:
    assert usage_from_transcription(document) == usage


def test_a_sum_of_usages_reads_back_as_it_was() -> None:
    assert total([]) == Usage()
    sum_of_all = total([Usage(10, 20, 3, 5, 1, 2), Usage(1, 2)])
    assert sum_of_all == Usage(11, 22, 3, 5, 1, 2)
    assert usage_from_openai(as_openai(sum_of_all)) == sum_of_all
    assert as_openai(Usage(1, 2)).keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}


def test_repeated_usage_in_a_stream_is_a_running_total() -> None:
    assert highest(None, Usage(1, 2)) == Usage(1, 2)
    assert highest(Usage(10, 2), Usage(10, 7)) == Usage(10, 7)
