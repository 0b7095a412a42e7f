"""Usage, as providers tell it."""

from decimal import Decimal

import pytest

from shared.money import from_nano, settle, to_nano
from shared.usage import (
    Usage,
    as_openai,
    audio_estimate,
    heard_seconds,
    highest,
    told_seconds,
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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (
            "1\n00:00:00,000 --> 00:00:04,500\none\n\n2\n00:00:04,500 --> 01:02:03,250\ntwo\n",
            "3723.25",
        ),
        ("WEBVTT\n\n00:01.000 --> 00:07.125 align:start\none\n", "7.125"),
        ("plain text, 00:00:09,000", "0"),
        ("a --> b", "0"),
    ],
)
def test_subtitles_tell_how_long_the_sound_was(text: str, seconds: str) -> None:
    assert heard_seconds(text) == Decimal(seconds)


def test_a_verbose_transcription_tells_how_long_the_sound_was() -> None:
    assert told_seconds({"duration": 8.47}) == Decimal("8.47")
    assert told_seconds({"duration": "long"}) == told_seconds({}) == 0


def test_an_estimate_of_sound_is_by_what_was_told_and_never_below_what_its_bytes_must_last() -> (
    None
):
    assert audio_estimate(64_000).seconds == 2
    assert audio_estimate(64_000, Decimal(90)).seconds == 90
    assert audio_estimate(64_000, Decimal(1)).seconds == 2
