"""The outbox: group commit, numbering without gaps, and what a refusal means."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from typing_extensions import override

from shared.reply import Kind, binding, unpack_frame
from shared.seal import KEY_BYTES, Seal
from shared.spend import encode_row
from shared.valkey.client import Client, CommandRefused, Disconnected
from shared.valkey.inbox import Ending, Post, Poster
from shared.valkey.keys import ShardKeys
from tests.spend_rows import spend_row
from tests.unit.workers.jobs import a_held_job
from workers.held import HeldJob
from workers.outbox import BYTES_PER_CALL, MAX_DELTA_BYTES, Outbox

SEAL = Seal([bytes(KEY_BYTES)])
WINDOW_SECONDS = 0.05


class HeldPoster(Poster):
    """A poster whose sends last until they are let go."""

    def __init__(self) -> None:
        super().__init__(ShardKeys(0), inbox_lease_seconds=5)
        self.sends: list[Sequence[Post] | Sequence[Ending]] = []
        self.refused: list[int] = []
        self.outcome = b"ok"
        self.errors: list[Exception] = []
        self.sent_again = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    @override
    async def post(self, client: Client, inbox: str, posts: Sequence[Post]) -> list[int]:
        await self._sent(posts)
        return self.refused

    @override
    async def settle(self, client: Client, inbox: str, endings: Sequence[Ending]) -> list[bytes]:
        await self._sent(endings)
        return [self.outcome] * len(endings)

    async def _sent(self, send: Sequence[Post] | Sequence[Ending]) -> None:
        self.sends.append(send)
        if len(self.sends) > 1:
            self.sent_again.set()
        if self.errors:
            raise self.errors.pop(0)
        await self.free.wait()

    def frames(self, held: HeldJob) -> list[tuple[int, int, bytes]]:
        """Of one job, in the order they were sent: kind, number, plain payload."""
        raw = [
            frame
            for send in self.sends
            for one in send
            if one.request_id == held.request_id
            for frame in ([one.frame] if isinstance(one, Post) else one.frames)
        ]
        return [opened(held, frame) for frame in raw]


def opened(held: HeldJob, frame: bytes) -> tuple[int, int, bytes]:
    kind, number, claim, sealed = unpack_frame(frame)
    assert claim == held.claim.deliveries
    return kind, number, SEAL.open(sealed, binding(held.request_id, kind, number, claim))


class Desk:
    """An outbox that runs, and what it was told."""

    def __init__(self, window_seconds: float) -> None:
        self.poster = HeldPoster()
        self.settled: list[tuple[HeldJob, bytes]] = []
        self.outbox = Outbox(
            Client("redis://nowhere.invalid", name="test"),
            self.poster,
            SEAL,
            delta_window_seconds=window_seconds,
            on_settled=lambda held, outcome: self.settled.append((held, outcome)),
        )

    async def turns(self, count: int = 10) -> None:
        """Lets everything happen that can happen without time passing."""
        for _ in range(count):
            await asyncio.sleep(0)


async def running(window_seconds: float) -> AsyncIterator[Desk]:
    desk = Desk(window_seconds)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(desk.outbox.run())
        await desk.turns()
        yield desk
        task.cancel()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """Without a window: every delta is due at once."""
    async for opened_desk in running(0.0):
        yield opened_desk


@pytest.fixture
async def paced() -> AsyncIterator[Desk]:
    async for opened_desk in running(WINDOW_SECONDS):
        yield opened_desk


async def test_deltas_of_one_turn_leave_in_one_frame_and_many_jobs_in_one_send(desk: Desk) -> None:
    one, other = a_held_job(), a_held_job()
    desk.outbox.post(one, b"a")
    desk.outbox.post(other, b"x")
    desk.outbox.post(one, b"b")
    await desk.turns()
    assert [len(send) for send in desk.poster.sends] == [2]
    assert desk.poster.frames(one) == [(Kind.DELTA, 1, b"ab")]
    assert desk.poster.frames(other) == [(Kind.DELTA, 1, b"x")]


async def test_what_gathers_during_a_send_leaves_in_one(desk: Desk) -> None:
    held = a_held_job()
    desk.poster.free.clear()
    desk.outbox.post(held, b"a")
    await desk.turns()
    for piece in (b"b", b"c", b"d"):
        desk.outbox.post(held, piece)
        await desk.turns()
    assert desk.poster.frames(held) == [(Kind.DELTA, 1, b"a")]
    desk.poster.free.set()
    await desk.turns()
    assert desk.poster.frames(held) == [(Kind.DELTA, 1, b"a"), (Kind.DELTA, 2, b"bcd")]


async def test_inboxes_are_sent_to_apart(desk: Desk) -> None:
    held = [a_held_job(reply_to=inbox) for inbox in ("api-1", "api-2", "api-1")]
    for one in held:
        desk.outbox.post(one, b"a")
    await desk.turns()
    assert sorted(len(send) for send in desk.poster.sends) == [1, 2]


async def test_the_first_delta_leaves_at_once_and_later_ones_wait_for_the_window(
    paced: Desk,
) -> None:
    held = a_held_job()
    paced.outbox.post(held, b"a")
    await paced.turns()
    assert paced.poster.frames(held) == [(Kind.DELTA, 1, b"a")]
    paced.outbox.post(held, b"b")
    paced.outbox.post(held, b"c")
    await paced.turns()
    assert len(paced.poster.sends) == 1
    await asyncio.sleep(2 * WINDOW_SECONDS)
    assert paced.poster.frames(held)[1:] == [(Kind.DELTA, 2, b"bc")]


async def test_an_end_takes_waiting_deltas_along_without_waiting_for_the_window(
    paced: Desk,
) -> None:
    held = a_held_job()
    paced.outbox.post(held, b"a")
    await paced.turns()
    paced.outbox.post(held, b"b")
    paced.outbox.end(held, Kind.END, b"[DONE]", [spend_row()])
    await paced.turns()
    assert paced.poster.frames(held)[1:] == [(Kind.END, 2, b"b[DONE]")]
    assert paced.settled == [(held, b"ok")]


async def test_a_failure_comes_after_the_deltas_that_were_waiting(paced: Desk) -> None:
    held = a_held_job()
    paced.outbox.post(held, b"a")
    await paced.turns()
    paced.outbox.post(held, b"b")
    paced.outbox.end(held, Kind.FAILED, b"error", [])
    await paced.turns()
    assert paced.poster.frames(held) == [
        (Kind.DELTA, 1, b"a"),
        (Kind.DELTA, 2, b"b"),
        (Kind.FAILED, 3, b"error"),
    ]
    assert len(paced.poster.sends) == 2, "both frames travel with the settlement"


async def test_a_settlement_carries_the_rows_of_every_attempt_that_has_none(desk: Desk) -> None:
    held = a_held_job()
    held.ended_rows += [("row-1", b"first"), ("row-2", b"")]
    last = spend_row(7, billed=True)
    desk.outbox.end(held, Kind.WHOLE, b"answer", [last])
    await desk.turns()
    (ending,) = desk.poster.sends[0]
    assert isinstance(ending, Ending)
    assert list(ending.rows) == [b"first", encode_row(last)]
    assert ending.charge == (7, last.usage.input_tokens + last.usage.output_tokens)
    assert (ending.token, ending.entry) == (held.claim.token, held.claim.entry)


async def test_nothing_follows_an_end(desk: Desk) -> None:
    held = a_held_job()
    desk.outbox.end(held, Kind.END, b"[DONE]", [])
    desk.outbox.post(held, b"late")
    desk.outbox.end(held, Kind.FAILED, b"error", [spend_row()])
    await desk.turns()
    assert desk.poster.frames(held) == [(Kind.END, 1, b"[DONE]")]
    assert len(desk.settled) == 1


async def test_numbers_have_no_gaps_however_a_stream_is_cut_into_posts(desk: Desk) -> None:
    held = a_held_job()
    said = [f"{number} ".encode() for number in range(30)]
    for number, piece in enumerate(said):
        desk.outbox.post(held, piece)
        await desk.turns(number % 4)
    desk.outbox.end(held, Kind.END, b"[DONE]", [])
    await desk.turns()
    frames = desk.poster.frames(held)
    assert [number for _, number, _ in frames] == list(range(1, len(frames) + 1))
    assert b"".join(payload for _, _, payload in frames) == b"".join(said) + b"[DONE]"


async def test_a_refused_post_loses_that_job_and_no_other(desk: Desk) -> None:
    kept, lost = a_held_job(), a_held_job()
    desk.poster.refused = [1]
    desk.outbox.post(kept, b"a")
    desk.outbox.post(lost, b"a")
    await desk.turns()
    assert (kept.lost, lost.lost) == (False, True)
    desk.outbox.post(lost, b"b")
    desk.outbox.end(lost, Kind.FAILED, b"error", [spend_row()])
    await desk.turns()
    assert len(desk.poster.sends) == 1, "a lost job posts and settles nothing"
    assert desk.settled == []


async def test_an_inbox_nobody_reads_cancels_its_jobs(desk: Desk) -> None:
    jobs = [a_held_job(), a_held_job()]
    desk.poster.refused = [-1]
    for held in jobs:
        desk.outbox.post(held, b"a")
    await desk.turns()
    assert all(held.cancelled and not held.lost for held in jobs)


async def test_a_fenced_settlement_is_told(desk: Desk) -> None:
    held = a_held_job()
    desk.poster.outcome = b"fenced"
    desk.outbox.end(held, Kind.END, b"[DONE]", [spend_row()])
    await desk.turns()
    assert desk.settled == [(held, b"fenced")]


@pytest.mark.parametrize("error", [Disconnected("away"), CommandRefused("OOM")])
async def test_a_send_that_was_lost_is_sent_again_with_the_same_numbers(
    desk: Desk, error: Exception
) -> None:
    held = a_held_job()
    desk.poster.errors = [error]
    desk.outbox.post(held, b"a")
    async with asyncio.timeout(2):
        await desk.poster.sent_again.wait()
    assert desk.poster.sends[0] == desk.poster.sends[1]
    desk.outbox.end(held, Kind.END, b"[DONE]", [])
    await desk.turns()
    assert desk.poster.frames(held)[-1] == (Kind.END, 2, b"[DONE]")


async def test_a_handler_far_ahead_waits_until_a_send_has_returned(desk: Desk) -> None:
    held = a_held_job()
    desk.poster.free.clear()
    desk.outbox.post(held, b"a")
    await desk.turns()
    assert not desk.outbox.is_full(held)
    desk.outbox.post(held, bytes(MAX_DELTA_BYTES + 1))
    assert desk.outbox.is_full(held)
    waiting = asyncio.ensure_future(desk.outbox.room())
    await desk.turns()
    assert not waiting.done()
    desk.poster.free.set()
    async with asyncio.timeout(1):
        await waiting
    assert not desk.outbox.is_full(held)


async def test_many_endings_are_cut_into_calls_the_server_can_take(desk: Desk) -> None:
    jobs = [a_held_job() for _ in range(250)]
    for held in jobs:
        desk.outbox.end(held, Kind.WHOLE, b"answer", [])
    await desk.turns()
    assert sorted(len(send) for send in desk.poster.sends) == [50, 100, 100]
    assert len(desk.settled) == 250


async def test_large_endings_are_cut_into_calls_by_their_bytes(desk: Desk) -> None:
    """One entry of a gigabyte would be refused, after the jobs had been ended with it."""
    desk.poster.free.clear()
    first = a_held_job()
    desk.outbox.end(first, Kind.WHOLE, b"x", [])
    await asyncio.sleep(0)
    waiting = [a_held_job() for _ in range(5)]
    for held in waiting:
        desk.outbox.end(held, Kind.WHOLE, b"x" * (BYTES_PER_CALL // 2 - 1000), [])
    desk.poster.free.set()
    async with asyncio.timeout(5):
        while len(desk.settled) < 6:  # noqa: ASYNC110  each settles by itself
            await asyncio.sleep(0.001)
    assert [len(send) for send in desk.poster.sends] == [1, 2, 2, 1]
