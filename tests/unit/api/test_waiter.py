"""A waiter: replies in order, whole, or failed; never a stream with a hole that looks whole."""

import asyncio
import os

import pytest

from api import waiter as waiters
from api.waiter import MAX_BUFFERED_BYTES, PAUSE_BYTES, Buffers, Waiter
from shared.errors import ErrorBody
from shared.reply import Answer, Kind, binding, encode_answer, encode_error, pack_frame
from shared.run import pack
from shared.seal import Seal, SealBroken

SEAL = Seal([os.urandom(32)])
REQUEST = "0" * 32


@pytest.fixture
def words() -> list[str]:
    return []


@pytest.fixture
async def waiter(words: list[str]) -> Waiter:
    return a_waiter(words)


def a_waiter(words: list[str], buffers: Buffers | None = None) -> Waiter:
    return Waiter(
        REQUEST,
        lane="default",
        seal=SEAL,
        waits_until=1e12,
        give_up_at=1e12,
        on_word=lambda _, word: words.append(word),
        buffers=buffers,
    )


def frame(kind: Kind, number: int, payload: bytes, claim: int = 1) -> bytes:
    sealed = SEAL.seal(payload, binding(REQUEST, kind, number, claim))
    return pack_frame(kind, number, claim, sealed)


async def test_deltas_are_handed_out_joined_and_in_order(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"one "))
    waiter.feed(frame(Kind.DELTA, 2, b"two "))
    assert waiter.take() == b"one two "
    waiter.feed(frame(Kind.END, 3, b"end"))
    assert waiter.take() == b"end"
    assert waiter.ended
    assert waiter.error is None


async def test_packed_runs_are_written_out_and_counted_so(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.DELTA, 1, pack(b"head ", [b"one", b"two"]) + b"three"))
    assert waiter.buffered == len(b"head one\n\nhead two\n\nthree")
    assert waiter.take() == b"head one\n\nhead two\n\nthree"


async def test_a_repeated_reply_is_dropped(waiter: Waiter) -> None:
    for _ in range(2):
        waiter.feed(frame(Kind.DELTA, 1, b"one "))
    assert waiter.take() == b"one "
    assert not waiter.ended


async def test_a_gap_ends_the_stream_as_failed(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"one "))
    waiter.feed(frame(Kind.END, 3, b"[DONE]"))
    assert waiter.ended
    assert waiter.error is not None
    assert waiter.error.code == "stream_interrupted"
    assert waiter.take() == b"one "


async def test_a_second_claim_after_the_first_reply_ends_the_stream_as_failed(
    waiter: Waiter,
) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"one "))
    waiter.feed(frame(Kind.END, 2, b"[DONE]", claim=2))
    assert waiter.error is not None


async def test_a_job_run_again_before_it_spoke_answers_under_its_new_claim(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.WHOLE, 1, encode_answer(Answer(body=b"{}")), claim=2))
    assert waiter.answer == Answer(body=b"{}")
    assert waiter.ended


async def test_a_failure_is_accepted_whatever_its_number_and_claim(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"one "))
    body = ErrorBody(status=502, type="upstream_error", message="m")
    waiter.feed(frame(Kind.FAILED, 1, encode_error(body), claim=2))
    assert waiter.error == body


async def test_nothing_follows_an_end(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.END, 1, b"end"))
    waiter.feed(frame(Kind.DELTA, 2, b"more"))
    assert waiter.take() == b"end"


async def test_a_reply_of_another_request_does_not_open(waiter: Waiter) -> None:
    sealed = SEAL.seal(b"x", binding("1" * 32, Kind.DELTA, 1, 1))
    with pytest.raises(SealBroken):
        waiter.feed(pack_frame(Kind.DELTA, 1, 1, sealed))


async def test_a_slow_client_pauses_its_worker_and_taking_resumes_it(
    waiter: Waiter, words: list[str]
) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"x" * (PAUSE_BYTES + 1)))
    waiter.feed(frame(Kind.DELTA, 2, b"x"))
    assert words == ["pause"]
    waiter.take()
    assert words == ["pause", "resume"]


async def test_a_client_that_is_far_too_slow_is_dropped(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"x" * (MAX_BUFFERED_BYTES + 1)))
    assert waiter.error is not None
    assert waiter.error.code == "client_too_slow"


async def test_changed_wakes_for_a_reply_and_for_a_client_that_left(waiter: Waiter) -> None:
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        group.create_task(waiter.changed())
        await asyncio.sleep(0)
        waiter.leave()


async def test_a_quiet_stream_is_kept_alive_and_a_whole_answer_is_not(waiter: Waiter) -> None:
    waiter.keep_alive(now=asyncio.get_running_loop().time() + 16)
    assert waiter.parts == []
    waiter.streaming = True
    waiter.keep_alive(now=asyncio.get_running_loop().time() + 16)
    assert waiter.take() == b": keep-alive\n\n"


async def test_a_client_that_reads_nothing_loses_its_connection(waiter: Waiter) -> None:
    dropped: list[bool] = []
    waiter.abort = lambda: dropped.append(True)
    waiter.feed(frame(Kind.DELTA, 1, b"x" * PAUSE_BYTES))
    assert not dropped
    waiter.feed(frame(Kind.DELTA, 2, b"x" * MAX_BUFFERED_BYTES))
    assert dropped == [True]
    assert waiter.error is not None
    assert waiter.error.code == "client_too_slow"


async def test_one_large_event_is_not_taken_for_a_slow_client(waiter: Waiter) -> None:
    waiter.feed(frame(Kind.DELTA, 1, b"x" * (8 << 20)))
    assert waiter.error is None
    assert len(waiter.take()) == 8 << 20


async def test_what_waits_for_all_clients_is_bounded_and_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiters, "MAX_ALL_BUFFERED_BYTES", 100)
    buffers = Buffers()
    first, second, third = (a_waiter([], buffers) for _ in range(3))
    first.feed(frame(Kind.DELTA, 1, b"x" * 60))
    second.feed(frame(Kind.DELTA, 1, b"x" * 60))
    assert first.error is None
    assert second.error is not None
    first.take()
    third.feed(frame(Kind.DELTA, 1, b"x" * 60))
    assert third.error is None
    third.forget()
    assert buffers.held == 0
