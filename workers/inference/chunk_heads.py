"""Rewrites the chunks of a stream without decoding and encoding each one whole.

The members before `choices` (id, model, created …) are the same bytes in every chunk of a stream.
They are decoded and rewritten once; of a later chunk that begins with the same bytes only what
follows is decoded, to check and count it, and is passed on unchanged. Whatever does not fit this
pattern (usage, errors, other members, another order) is left to the ordinary way.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

import msgspec

from shared import run

CHOICES = b'"choices":'
USAGE = b'"usage":{'

RUN_AT_MOST = 128
"""A bound on what is done in vain where every few chunks have another head."""
OBJECT_ENDS = frozenset(b"}")
_LAST = itemgetter(-1)

_encode = msgspec.json.Encoder().encode


class Delta(msgspec.Struct, gc=False):
    """Text. A member typed None is absent or null here; anything else is left to the ordinary way."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: None = None


def text_length(delta: Delta) -> int:
    """Characters of all it says."""
    length = len(delta.content) if delta.content else 0
    for text in (delta.reasoning_content, delta.reasoning, delta.refusal):
        if text:
            length += len(text)
    return length


class Choice(msgspec.Struct, gc=False):
    delta: Delta
    finish_reason: str | None = None


class Rest(msgspec.Struct, gc=False):
    """A chunk from `choices` on. Members that the head is to have must not come again here."""

    choices: tuple[Choice]
    usage: None = None
    error: None = None
    id: None = None
    object: None = None
    model: None = None
    episode_id: None = None


_decode_rests = msgspec.json.Decoder(Rest).decode_lines


class ChunkHead:
    """The head that chunks of this stream share, as it comes and as it leaves."""

    __slots__ = ("_comes", "_leaves", "_replacements")

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

    def tails(self, events: Sequence[bytes], start: int) -> list[bytes]:
        """What follows the known head, of the chunks from `start` to one that has another."""
        head = self._comes
        if head is None or not events[start].startswith(head):
            return []
        events = events[start : start + RUN_AT_MOST]
        # Asked of all at once: a step of Python for each chunk would be a good part of its cost.
        tails = list(map(bytes.removeprefix, events, repeat(head)))
        if len(b"".join(events)) - len(b"".join(tails)) != len(head) * len(tails):
            unknown = (at for at, event in enumerate(events) if not event.startswith(head))
            del tails[next(unknown) :]
        # Usage comes last. Chunks before it that have one too are found when they are decoded.
        while tails and USAGE in tails[-1]:
            tails.pop()
        return tails

    def rewrite(self, tails: Sequence[bytes]) -> tuple[bytes, list[Rest]] | None:
        """Chunks that share the head, as a packed run, and the rest of each, decoded all at once.

        None when any of them must take the ordinary way.
        """
        said = b"".join(tails)
        # A line end within a chunk is white space in JSON, but not in an event stream.
        if b"\n" in said or b"\r" in said or run.holds_marks(said):
            return None
        # Each must end as an object does: then none can leave open what the next one closes.
        if not all(tails) or set(map(_LAST, tails)) != OBJECT_ENDS:
            return None
        text = b'{"choices":' + b'\n{"choices":'.join(tails)
        try:
            rests = _decode_rests(text)
            if not text.isascii():
                text.decode()  # what is passed over above is not checked there
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # broken, or of a shape we do not know: the ordinary way says which
        if len(rests) != len(tails):
            return None
        return run.pack(self._leaves, tails), rests
