"""A stream on its way to the client: the bytes as they came, and no end that was not there."""

import os

import pytest
from sse_starlette import EventSourceResponse
from starlette.types import Message

from api.relay import SSE_HEADERS, Parts, ReadyStream, StreamCut, known_headers, timings
from api.waiter import Waiter
from shared.errors import Overloaded
from shared.metrics import Metrics
from shared.reply import Answer, Kind, binding, pack_frame
from shared.seal import Seal

SEAL = Seal([os.urandom(32)])
REQUEST = "0" * 32


@pytest.fixture
async def waiter() -> Waiter:
    return Waiter(
        REQUEST,
        lane="default",
        seal=SEAL,
        waits_until=1e12,
        give_up_at=1e12,
        on_word=lambda _, word: None,
    )


def feed(waiter: Waiter, kind: Kind, number: int, payload: bytes) -> None:
    sealed = SEAL.seal(payload, binding(REQUEST, kind, number, 1))
    waiter.feed(pack_frame(kind, number, 1, sealed))


async def sent(waiter: Waiter, metrics: Metrics) -> tuple[list[Message], bool]:
    """What the client gets, and whether it was cut."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError("nobody reads a request here")

    stream = ReadyStream(Parts(waiter, metrics.streams_cut))
    try:
        await stream({"type": "http"}, receive, send)
    except StreamCut:
        return messages, True
    return messages, False


async def test_a_whole_stream_ends_with_its_end(waiter: Waiter) -> None:
    feed(waiter, Kind.DELTA, 1, b"one ")
    feed(waiter, Kind.END, 2, b"two")
    messages, cut = await sent(waiter, Metrics())
    assert [message.get("body") for message in messages] == [None, b"one two"]
    assert messages[-1]["more_body"] is False
    assert not cut


async def test_an_end_that_comes_late_is_still_sent(waiter: Waiter) -> None:
    parts = Parts(waiter, Metrics().streams_cut)
    feed(waiter, Kind.DELTA, 1, b"one ")
    over = [(await anext(parts), parts.are_over)]
    feed(waiter, Kind.END, 2, b"")
    over.append((await anext(parts), parts.are_over))
    assert over == [(b"one ", False), (b"", True)]
    with pytest.raises(StopAsyncIteration):
        await anext(parts)


async def test_a_failed_stream_says_so_once_and_has_no_end(waiter: Waiter) -> None:
    metrics = Metrics()
    feed(waiter, Kind.DELTA, 1, b"one ")
    waiter.fail(Overloaded("Too much.", code="queue_full"))
    messages, cut = await sent(waiter, metrics)
    _, one, event = messages
    assert cut
    assert one["body"] == b"one "
    assert event["body"].startswith(b'data: {"error":')
    assert event["more_body"] is True
    assert metrics.streams_cut.labels("queue_full").value == 1


async def test_a_client_that_left_is_sent_nothing_more(waiter: Waiter) -> None:
    feed(waiter, Kind.DELTA, 1, b"one ")
    waiter.leave()
    messages, cut = await sent(waiter, Metrics())
    assert cut
    assert len(messages) == 1


def test_a_worker_adds_the_headers_it_may_add_and_no_other() -> None:
    given = {"x-ollm-cache": "hit", "set-cookie": "a=b", "cache-control": "a\r\nb: c"}
    assert known_headers(given) == [(b"x-ollm-cache", b"hit")]


async def test_streams_have_the_headers_of_the_library(waiter: Waiter) -> None:
    parts = Parts(waiter, Metrics().streams_cut)
    usual = EventSourceResponse(parts, headers=SSE_HEADERS, sep="\n", ping=0)
    ours = ReadyStream(parts)
    assert isinstance(ours, EventSourceResponse)
    assert ours.raw_headers == usual.raw_headers
    assert vars(ours).keys() >= vars(usual).keys()


def test_the_stages_of_an_answer_are_all_of_its_time() -> None:
    answer = Answer(b"{}", queue_ms=3.0, upstream_ms=90.0)
    assert dict(timings(answer, auth_ms=1.5, since_ms=100.0)) == {
        b"x-ollm-overhead-ms": b"11.50",
        b"server-timing": b"auth;dur=1.50, queue;dur=3.00, upstream;dur=90.00, relay;dur=7.00",
    }


def test_no_stage_is_negative_where_the_hosts_clocks_differ() -> None:
    answer = Answer(b"{}", queue_ms=3.0, upstream_ms=90.0)
    told = dict(timings(answer, auth_ms=0.0, since_ms=80.0))
    assert told[b"x-ollm-overhead-ms"] == b"3.00"
    assert told[b"server-timing"].endswith(b"relay;dur=0.00")
