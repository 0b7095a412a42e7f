"""A run: server-sent events that share their head, packed so that the head travels once.

    01 head 02 tail 02 tail … 03        stands for   head tail LF LF head tail LF LF …

The members before `choices` are two thirds of a chunk and the same in all chunks of a stream. Between
worker and API a stream's text may hold runs anywhere; outside them it is as the client gets it. The
three marks are control characters, which no JSON text holds unescaped.
"""

from collections.abc import Sequence

OPEN, NEXT, CLOSE = b"\x01", b"\x02", b"\x03"
EVENT_END = b"\n\n"


def holds_marks(text: bytes) -> bool:
    """Whether a text must not become a part of a run."""
    return OPEN in text or NEXT in text or CLOSE in text


def pack(head: bytes, tails: Sequence[bytes]) -> bytes:
    """None of them may hold a mark; `tails` is not empty. One alone has nothing to share."""
    if len(tails) == 1:
        return b"%b%b%b" % (head, tails[0], EVENT_END)
    return b"%b%b%b%b%b" % (OPEN, head, NEXT, NEXT.join(tails), CLOSE)


def unpack(text: bytes) -> bytes:
    """The text for the client."""
    if OPEN not in text:
        return text
    before, *runs = text.split(OPEN)
    parts = [before]
    for run in runs:
        packed, _, after = run.partition(CLOSE)
        head, *tails = packed.split(NEXT)
        parts += (head, (EVENT_END + head).join(tails), EVENT_END, after)
    return b"".join(parts)


def unpacked_size(text: bytes) -> int:
    """Bytes of the text for the client, without making it."""
    size = len(text)
    for run in text.split(OPEN)[1:]:
        head, _, tails = run.partition(CLOSE)[0].partition(NEXT)
        # Every tail has a mark packed, and a head and an event's end unpacked; a run has two more
        # marks and one head.
        size += (tails.count(NEXT) + 1) * (len(head) + len(EVENT_END) - 1) - len(head) - 2
    return size
