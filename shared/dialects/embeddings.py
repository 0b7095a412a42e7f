"""The embeddings document: OpenAI's `POST /v1/embeddings`, checked when it comes in."""

from typing import Any

from shared.dialects.faults import INT32_MAX, bad, integer, missing
from shared.dialects.request import (
    InferenceRequest,
    check_cache_options,
    decode,
    deny_unknown,
    read_cache,
    read_model,
    read_own_tags,
    read_truth,
    read_user,
    refuse_twice,
)

ENCODINGS = ("float", "base64")
MAX_INPUTS = 2048
"""OpenAI's own bound on the items of one request."""

KNOWN_FIELDS = frozenset(
    "model input dimensions encoding_format user ollm::tags ollm::dryrun ollm::cache_options"
    " ollm::include_raw_response ollm::deny_unknown_fields".split()
)


def parse(body: bytes) -> InferenceRequest:
    """Decodes and checks. Raises InvalidRequest with `param` set to the path of what is wrong."""
    fields = decode(body)
    refuse_twice(body, fields)
    model = read_model(fields)
    if (given := fields.get("input")) is None:
        raise missing("input")
    _check_input(given)
    if (dimensions := fields.get("dimensions")) is not None:
        integer("dimensions", dimensions, 1, INT32_MAX)
    encoding = fields.get("encoding_format")
    if encoding is not None and encoding not in ENCODINGS:
        raise bad("encoding_format", "must be one of 'float', 'base64'", "literal_error")
    if (cache := fields.get("ollm::cache_options")) is not None:
        check_cache_options("ollm::cache_options", cache)
    if read_truth(fields, "ollm::deny_unknown_fields"):
        deny_unknown(fields, KNOWN_FIELDS)
    mode, max_age = read_cache(fields)
    return InferenceRequest(
        fields=fields,
        model=model,
        user=read_user(fields),
        tags=read_own_tags(fields),
        dryrun=read_truth(fields, "ollm::dryrun"),
        include_raw_response=read_truth(fields, "ollm::include_raw_response"),
        cache=mode,
        cache_max_age=max_age,
    )


def _check_input(given: Any) -> None:
    """A text, texts, tokens, or lists of tokens: OpenAI's four forms."""
    if type(given) is str:
        if not given:
            raise bad("input", "must not be empty", "too_short")
        return
    if type(given) is not list:
        raise bad("input", "must be a string or an array", "list_type")
    if not given:
        raise bad("input", "must hold at least one item", "too_short")
    kinds = set(map(type, given))
    if kinds == {int}:
        _check_tokens("input", given)
        return
    if len(given) > MAX_INPUTS:
        raise bad("input", f"may hold at most {MAX_INPUTS} items", "too_long")
    if kinds == {list}:
        for at, tokens in enumerate(given):
            if not tokens or set(map(type, tokens)) != {int}:
                raise bad(f"input.{at}", "must be an array of tokens", "list_type")
            _check_tokens(f"input.{at}", tokens)
    elif kinds != {str}:
        raise bad("input", "must hold strings, tokens, or arrays of tokens", "union_type")
    elif "" in given:
        raise bad(f"input.{given.index('')}", "must not be empty", "too_short")


def _check_tokens(path: str, tokens: list[int]) -> None:
    if min(tokens) < 0 or max(tokens) > INT32_MAX:
        raise bad(path, "holds a number that is no token", "int_type")


def count_characters(fields: dict[str, Any]) -> int:
    """Of a checked request's input; a token counts as four."""
    given = fields["input"]
    if type(given) is str:
        return len(given)
    return sum(
        len(item) if type(item) is str else 4 * (len(item) if type(item) is list else 1)
        for item in given
    )


def count_inputs(fields: dict[str, Any]) -> int:
    """How many vectors a checked request asks for."""
    given = fields["input"]
    return 1 if type(given) is str or type(given[0]) is int else len(given)
