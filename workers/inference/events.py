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
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises EventTooLong."""
        text = self._rest + piece if self._rest else piece
        if b"\r" in text:
            # A CR at the very end may be the first half of a CRLF: it waits for the next piece.
            held = b"\r" if text.endswith(b"\r") else b""
            text = text[: len(text) - len(held)].replace(b"\r\n", b"\n")
        else:
            held = b""
        whole, end, rest = text.rpartition(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLong
        return _events(whole) if end else []

    @property
    def is_clean(self) -> bool:
        """Whether nothing of an unfinished event is held."""
        return not self._rest.strip()


def _events(text: bytes) -> list[bytes]:
    """The data of each event of a text that ends where an event does."""
    if text.startswith(b"data: "):
        # The common case: every event is one line of data, and splitting is all there is to do.
        events = text[6:].split(b"\n\ndata: ")
        if text.count(b"\n") == 2 * (len(events) - 1):
            return events
    return [data for event in text.split(b"\n\n") if (data := _data(event)) is not None]


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None
