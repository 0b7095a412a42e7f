"""Rewrites the chunks of a stream without decoding and encoding each one whole.

The members before `choices` (id, model, created …) are the same bytes in every chunk of a stream.
They are decoded and rewritten once; of a later chunk that begins with the same bytes only what
follows is decoded, to check and count it, and is passed on unchanged. Whatever does not fit this
pattern (usage, errors, other members, another order) is left to the ordinary way.
"""

from typing import Any

import msgspec

CHOICES = b'"choices":'

_encode = msgspec.json.Encoder().encode


class Delta(msgspec.Struct):
    """Text. A member typed None is absent or null here; anything else is left to the ordinary way."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: None = None


class Choice(msgspec.Struct):
    delta: Delta
    finish_reason: str | None = None


class Rest(msgspec.Struct):
    """A chunk from `choices` on. Members that the head is to have must not come again here."""

    choices: list[Choice]
    usage: None = None
    error: None = None
    id: None = None
    object: None = None
    model: None = None
    episode_id: None = None


_decode_rest = msgspec.json.Decoder(Rest).decode


class ChunkHead:
    """The head that chunks of this stream share, as it comes and as it leaves."""

    def __init__(self, replacements: dict[str, Any]) -> None:
        """`replacements` are the members the gateway sets in every chunk."""
        self._replacements = replacements
        self._comes: bytes | None = None
        self._leaves = b""

    def learn(self, event: bytes) -> None:
        """Remembers the head of a chunk that was found to be sound."""
        at = event.find(CHOICES)
        if at < 0:
            return
        head = event[: at + len(CHOICES)]
        try:
            members = msgspec.json.decode(head + b"[]}")
        except msgspec.DecodeError:
            return  # `choices` stands inside something else: not our pattern
        if not {"id", "object", "model", "choices"} <= members.keys():
            return
        del members["choices"]
        members.update(self._replacements)
        self._comes = head
        self._leaves = b"data: " + _encode(members)[:-1] + b"," + CHOICES

    def rewrite(self, event: bytes) -> tuple[bytes, Choice] | None:
        """The event for the client and its choice; None when the ordinary way must be taken."""
        head = self._comes
        if head is None or not event.startswith(head):
            return None
        tail = event[len(head) :]
        if b"\n" in tail or b"\r" in tail:
            return None  # white space in JSON, but the end of a line in an event stream
        try:
            rest = _decode_rest(b'{"choices":' + tail)
            if not tail.isascii():
                tail.decode()  # what is passed over above is not checked there
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # broken, or of a shape we do not know: the ordinary way says which
        if len(rest.choices) != 1:
            return None
        return self._leaves + tail + b"\n\n", rest.choices[0]
