"""The check of POST /v1/embeddings as tables: what passes, and what is wrong with the rest."""

import json
from typing import Any

import pytest

from shared.dialects import embeddings
from shared.dialects.embeddings import MAX_INPUTS
from shared.errors import InvalidRequest


def body(**fields: Any) -> bytes:
    """A good body with these fields on top; a field set to `...` is left out."""
    whole = {"model": "sim_embed", "input": "some text", **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def ours(**fields: Any) -> bytes:
    return body(**{f"ollm::{name}": value for name, value in fields.items()})


@pytest.mark.parametrize(
    "good",
    [
        body(),
        body(input=["a", "b"]),
        body(input=[1, 2, 50_000]),
        body(input=[[1, 2], [3]]),
        body(dimensions=1, encoding_format="float", user="u"),
        body(encoding_format="base64", dimensions=None, user=None),
        body(unheard_of={"a": 1}),
        ours(tags={"a": "b"}, dryrun=False, include_raw_response=None),
    ],
)
def test_a_good_body_passes(good: bytes) -> None:
    request = embeddings.parse(good)
    assert request.model == "sim_embed"
    assert not request.stream


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (b"[]", None),
        (b"{", None),
        (body(model=...), "model"),
        (body(model=1), "model"),
        (body(model=" "), "model"),
        (body(input=...), "input"),
        (body(input=None), "input"),
        (body(input=""), "input"),
        (body(input=[]), "input"),
        (body(input={}), "input"),
        (body(input=5), "input"),
        (body(input=["a", 1]), "input"),
        (body(input=["a", ""]), "input.1"),
        (body(input=[True]), "input"),
        (body(input=[1.5]), "input"),
        (body(input=[-1]), "input"),
        (body(input=[2**31]), "input"),
        (body(input=[[1], []]), "input.1"),
        (body(input=[[1], ["a"]]), "input.1"),
        (body(input=["a"] * (MAX_INPUTS + 1)), "input"),
        (body(dimensions=0), "dimensions"),
        (body(dimensions="5"), "dimensions"),
        (body(dimensions=2**31), "dimensions"),
        (body(encoding_format="int8"), "encoding_format"),
        (body(encoding_format=1), "encoding_format"),
        (body(user=5), "user"),
        (ours(tags={"a": 1}), "ollm::tags.a"),
        (ours(dryrun="yes"), "ollm::dryrun"),
        (ours(include_raw_response=1), "ollm::include_raw_response"),
        (ours(cache_options="on"), "ollm::cache_options"),
        (ours(cache_options={"enabled": "yes"}), "ollm::cache_options.enabled"),
        (ours(deny_unknown_fields="x"), "ollm::deny_unknown_fields"),
        (body(**{"ollm::deny_unknown_fields": True, "b": 1, "a": 2}), "a"),
    ],
)
def test_a_wrong_body_is_refused_and_the_error_names_the_place(
    wrong: bytes, param: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        embeddings.parse(wrong)
    assert refused.value.param == param


def test_our_own_fields_are_read() -> None:
    request = embeddings.parse(ours(tags=["a=b"], dryrun=True, include_raw_response=True))
    assert (request.tags, request.dryrun, request.include_raw_response) == ({"a": "b"}, True, True)


@pytest.mark.parametrize(
    ("given", "characters"), [("four", 4), (["a", "bc"], 3), ([1, 2], 8), ([[1], [2, 3]], 12)]
)
def test_characters_stand_in_for_a_missing_count(given: object, characters: int) -> None:
    assert embeddings.count_characters({"input": given}) == characters
