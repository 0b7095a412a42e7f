"""Counting and cutting text into tokens."""

import pytest

from workers.simulator import tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "one",
        "one two",
        "  lead and trail  ",
        "tabs\tand\n\nlines\n",
        "größer 世界 🙂 e\u0301",
    ],
)
def test_the_tokens_joined_are_the_text_again(text: str) -> None:
    assert "".join(tokens.split(text)) == text


def test_a_token_is_a_word_with_its_leading_space() -> None:
    assert tokens.split("say it  twice") == ["say", " it", "  twice"]


def test_white_space_at_the_end_belongs_to_the_last_word() -> None:
    assert tokens.split("over \n") == ["over \n"]


def test_a_prompt_counts_its_words_and_three_tokens_for_each_message() -> None:
    assert tokens.count_prompt(["be brief", "", "what is it"], messages=2) == 5 + 6


def test_usage_adds_up_and_reasoning_is_part_of_the_completion() -> None:
    usage = tokens.usage(prompt=7, completion=5, reasoning=2)
    assert usage["total_tokens"] == 12
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


def test_a_logprob_ranks_the_chosen_token_first() -> None:
    entry = tokens.logprob(" é", alternatives=3)
    top = entry["top_logprobs"]
    assert isinstance(top, list)
    assert top[0]["token"] == " é"
    values = [alternative["logprob"] for alternative in top]
    assert values == sorted(values, reverse=True)
    assert all(value <= 0 for value in values)
    assert entry["bytes"] == list(" é".encode())
    assert entry == tokens.logprob(" é", alternatives=3)


def test_no_alternatives_are_listed_unless_asked_for() -> None:
    assert tokens.logprob("a", alternatives=0)["top_logprobs"] == []
