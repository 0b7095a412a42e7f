"""Splitting event streams: the same events however the bytes were cut."""

import time

import pytest

from workers.inference.events import MAX_EVENT_BYTES, EventSplitter, EventTooLong

STREAM = b': hello\n\ndata: {"a":1}\n\nevent: x\ndata: two\ndata:lines\n\nid: 7\n\ndata: [DONE]\n\n'
EVENTS = [b'{"a":1}', b"two\nlines", b"[DONE]"]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_come_out_whole_however_they_were_cut(size: int, ends: bytes) -> None:
    stream = STREAM.replace(b"\n", ends)
    splitter = EventSplitter()
    found = []
    for start in range(0, len(stream), size):
        found += splitter.feed(stream[start : start + size])
    assert found == EVENTS
    assert splitter.is_clean


def test_an_unfinished_event_is_not_an_event() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b'data: {"a":') == []
    assert not splitter.is_clean


def test_an_unfinished_event_costs_the_same_however_much_of_it_has_come() -> None:
    """Else a provider could keep a worker busy with one byte at a time."""
    splitter = EventSplitter()
    splitter.feed(b"data: " + b"x" * (MAX_EVENT_BYTES // 2))
    began = time.process_time()
    for _ in range(20_000):
        splitter.feed(b"x")
    assert time.process_time() - began < 2  # looked through again each time: a minute
    (event,) = splitter.feed(b"\r\n\r\n")
    assert len(event) == MAX_EVENT_BYTES // 2 + 20_000


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter()
    with pytest.raises(EventTooLong):
        splitter.feed(b"data: " + b"x" * MAX_EVENT_BYTES)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\n\ndata:2\n\n", [b"1", b"2"]),
        (b"data: 1\ndata: 2\n\ndata: 3\n\n", [b"1\n2", b"3"]),
        (b"data: 1\n\nid: 5\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\n\n: note\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\n\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\n\n\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\nid: 5\n\n", [b"1"]),
        (b"\n\ndata: 1\n\n", [b"1"]),
        (b"data: \n\n", [b""]),
        (b"\n\n", []),
    ],
)
def test_a_text_of_mixed_events_is_taken_apart_at_every_blank_line(
    stream: bytes, events: list[bytes]
) -> None:
    assert EventSplitter().feed(stream) == events
    splitter = EventSplitter()
    assert [e for at in range(len(stream)) for e in splitter.feed(stream[at : at + 1])] == events
