"""A whole answer of the usual shape, rewritten without decoding and encoding it whole.

As with the chunks of a stream (`chunk_heads`), what stands before `choices` is decoded and
rewritten; what follows is decoded only to check and count it, and is passed on unchanged. Whatever
does not fit (other content than text, usage that is missing or odd, another order of members) is
left to the ordinary way.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from shared.usage import MAX_COUNT, Usage, output_tokens
from workers.inference.chunk_heads import CHOICES, Delta

Tokens = Annotated[int, msgspec.Meta(ge=0, lt=MAX_COUNT)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Tier = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]


class Details(msgspec.Struct, frozen=True):
    cached_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0
    audio_tokens: Tokens = 0


class Counts(msgspec.Struct):
    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Tokens = 0
    prompt_tokens_details: Details = Details()
    completion_tokens_details: Details = Details()

    def usage(self) -> Usage:
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        output = self.completion_tokens
        if completion.reasoning_tokens:
            output = output_tokens(
                self.prompt_tokens, output, completion.reasoning_tokens, self.total_tokens
            )
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=output,
            cached_input_tokens=prompt.cached_tokens,
            cache_write_tokens=prompt.cache_write_tokens,
            reasoning_tokens=completion.reasoning_tokens,
            audio_input_tokens=prompt.audio_tokens,
            audio_output_tokens=completion.audio_tokens,
        )


class PlainChoice(msgspec.Struct):
    message: Delta
    finish_reason: str | None = None


class Rest(msgspec.Struct):
    """An answer from `choices` on. What the head is to have must not come again here."""

    choices: Annotated[list[PlainChoice], msgspec.Meta(min_length=1)]
    usage: Counts
    system_fingerprint: Text | UnsetType = UNSET
    service_tier: Tier | UnsetType = UNSET
    error: None = None
    created: UnsetType = UNSET
    id: UnsetType = UNSET
    object: UnsetType = UNSET
    model: UnsetType = UNSET
    episode_id: UnsetType = UNSET


_REST_ONLY = frozenset({"usage", "system_fingerprint", "service_tier"})
"""These stand behind the choices; before them they might be there twice."""

_encode = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(dict[str, Any]).decode
_decode_rest = msgspec.json.Decoder(Rest).decode


def rewrite(data: bytes, replacements: Mapping[str, Any]) -> tuple[bytes, Rest, Any] | None:
    """The answer for the client, what it was from `choices` on, and the id it had."""
    at = data.find(CHOICES)
    if at < 0:
        return None
    head, text = data[:at], data[at:]
    try:
        # Were this `choices` inside something else, the head would not be an object.
        members = _decode_head(head + b'"choices":0}')
        rest = _decode_rest(b"{" + text)
        if not text.isascii():
            text.decode()  # what is passed over is not checked above
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    del members["choices"]
    if not members.get("created") or members.get("error") or not _REST_ONLY.isdisjoint(members):
        return None
    given_id = members.get("id")
    members.update(replacements)
    if rest.system_fingerprint is UNSET:
        members["system_fingerprint"] = ""
    if rest.service_tier is UNSET:
        members["service_tier"] = "default"
    return _encode(members)[:-1] + b"," + text, rest, given_id
