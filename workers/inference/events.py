"""Splits a server-sent event stream into the data of its events, as bytes.

Wire format: WHATWG HTML, "Server-sent events". Events end at a blank line; lines end with LF or
CRLF; a leading space after the colon is not data; comments and other fields are passed over.
"""

MAX_EVENT_BYTES = 8 << 20
"""Far above any chunk of a completion: a longer event is an upstream gone wrong."""


class EventTooLong(Exception):
    """An event passed the bound without ending."""


class EventSplitter:
    """Feed it bytes as they arrive; it gives the data of every event that is complete."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """An unfinished event, as it came: it is not looked through again with every piece."""
        self._size = 0
        self._tail = b""
        """The last three bytes of it."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises EventTooLong."""
        if self._rest and not self._ends_with(piece):
            self._keep(piece)
            return []
        text = b"".join((*self._rest, piece)) if self._rest else piece
        if b"\r" in text:
            # A CR at the very end may be the first half of a CRLF: it waits for the next piece.
            held = b"\r" if text.endswith(b"\r") else b""
            text = text[: len(text) - len(held)].replace(b"\r\n", b"\n")
        else:
            held = b""
        whole, end, rest = text.rpartition(b"\n\n")
        self._rest, self._size, self._tail = [], 0, b""
        self._keep(rest + held)
        return _events(whole) if end else []

    def _ends_with(self, piece: bytes) -> bool:
        """Whether an event may end in this piece, or between the last one and it."""
        seam = self._tail + piece
        return b"\n\n" in seam or b"\n\r\n" in seam

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._size += len(piece)
            self._tail = (self._tail + piece[-3:])[-3:]
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLong

    @property
    def is_clean(self) -> bool:
        """Whether nothing of an unfinished event is held."""
        return not b"".join(self._rest).strip()


def _events(text: bytes) -> list[bytes]:
    """The data of each event of a text that ends where an event does."""
    if text.startswith(b"data: "):
        # The common case: every event is one line of data, and splitting is all there is to do.
        events = text[6:].split(b"\n\ndata: ")
        if b"\n" not in b"".join(events):
            return events
    return [data for event in text.split(b"\n\n") if (data := _data(event)) is not None]


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None
