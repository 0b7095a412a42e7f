"""The queue's scripts on a real Valkey: each promise of docs/queue-protocol.md, one by one."""

import asyncio
from collections.abc import Awaitable

import msgspec
import pytest

from shared.document import QueueLimits
from shared.errors import Overloaded
from shared.valkey.inbox import Ending, Post
from shared.valkey.lane import Claim, Lanes
from tests.integration.queue import INBOX, Queue, a_header


def ending(
    claim: Claim,
    *,
    frames: tuple[bytes, ...] = (),
    rows: tuple[bytes, ...] = (),
    transcripts: tuple[bytes, ...] = (),
) -> Ending:
    return Ending(
        request_id=claim.request_id,
        lane=claim.lane,
        entry=claim.entry,
        token=claim.token,
        frames=frames,
        rows=rows,
        transcripts=transcripts,
    )


async def attempted(queue: Queue, claim: Claim, row: bytes = b"lost-row") -> bytes:
    return await queue.lanes().attempt(
        queue.client, claim, reply_to=INBOX, row_id="row-1", row=row, ended=()
    )


async def the_claim(queue: Queue) -> Claim:
    await queue.admit()
    (claim,) = await queue.claimed()
    return claim


async def reclaimed(queue: Queue, worker: str = "worker-2") -> list[Claim]:
    """Takes over what has been idle for 1 ms, as after a lease; waits out the server's youth."""
    lanes = queue.lanes(worker)
    async with asyncio.timeout(5):
        while True:
            taken = await lanes.reclaim(queue.client, "default", lease_ms=1, at_most=10)
            if taken:
                return taken
            await asyncio.sleep(0.05)


async def test_a_job_travels_from_admission_to_settlement_and_leaves_no_key(queue: Queue) -> None:
    claim = await the_claim(queue)
    assert await attempted(queue, claim) == b"ok"
    post = Post(request_id=claim.request_id, token=claim.token, frame=b"frame-1")
    assert await queue.poster.post(queue.client, INBOX, [post]) == []
    end = ending(claim, frames=(b"frame-2",), rows=(b"row",))
    assert await queue.poster.settle(queue.client, INBOX, [end]) == [b"ok"]
    assert await queue.replies() == [
        (claim.request_id, b"frame-1"),
        (claim.request_id, b"frame-2"),
    ]
    assert await queue.spend_rows() == [b"row"]
    assert await queue.keys_left() <= {queue.keys.sealed_bytes}
    assert await queue.client.call(b"GET", queue.keys.sealed_bytes) == b"0"


async def test_admission_asked_again_lets_a_job_in_once_even_after_it_has_ended(
    queue: Queue,
) -> None:
    header = a_header()
    args = (queue.client, header, b"sealed", QueueLimits())
    assert (await queue.admission.admit(*args)).outcome == "admitted"
    assert (await queue.admission.admit(*args)).outcome == "duplicate"
    (claim,) = await queue.claimed()
    await queue.poster.settle(queue.client, INBOX, [ending(claim)])
    assert (await queue.admission.admit(*args)).outcome == "duplicate"
    assert await queue.claimed() == []


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (QueueLimits(lane_capacity=1), "queue_full"),
        (QueueLimits(max_sealed_bytes=10), "queue_full"),
    ],
)
async def test_admission_refuses_what_would_pass_a_bound(
    queue: Queue, limits: QueueLimits, code: str
) -> None:
    await queue.admit(limits=limits)
    with pytest.raises(Overloaded) as refused:
        await queue.admit(limits=limits)
    assert refused.value.code == code
    assert refused.value.retry_after
    assert len(await queue.claimed()) == 1


async def test_admission_stops_while_every_job_could_still_write_its_rows(queue: Queue) -> None:
    limits = QueueLimits(lane_capacity=2, max_spend_backlog=4 * 4 * 2 + 1)
    (claim,) = [await the_claim(queue)]
    await queue.admit(limits=limits)
    await queue.poster.settle(queue.client, INBOX, [ending(claim, rows=(b"row",))])
    with pytest.raises(Overloaded) as refused:
        await queue.admit(limits=limits)
    assert refused.value.code == "store_unavailable"


async def test_admission_stops_while_too_many_receipts_are_to_be_made(queue: Queue) -> None:
    limits = QueueLimits(max_receipt_backlog=2)
    for transcript in (b"t1", b"t2"):
        await queue.admit(limits=limits)
        (claim,) = await queue.claimed()
        end = ending(claim, transcripts=(transcript,))
        assert await queue.poster.settle(queue.client, INBOX, [end]) == [b"ok"]
    with pytest.raises(Overloaded) as refused:
        await queue.admit(limits=limits)
    assert refused.value.code == "store_unavailable"
    (first, _), *_ = await queue.client.call(b"XRANGE", queue.keys.receipts, b"-", b"+")
    await queue.client.call(b"XDEL", queue.keys.receipts, first)
    await queue.admit(limits=limits)


async def test_claims_take_the_best_lanes_first_and_starve_none(queue: Queue) -> None:
    for lane in ("batch", "flex", "default", "priority"):
        for _ in range(10):
            await queue.admit(a_header(lane=lane))
    claims = await queue.claimed(slots=15)
    counts = {lane: sum(c.lane == lane for c in claims) for lane in queue.keys.lanes}
    assert counts == {"priority": 8, "default": 4, "flex": 2, "batch": 1}


async def test_an_attempt_writes_the_rows_of_those_that_ended_exactly_once(queue: Queue) -> None:
    claim = await the_claim(queue)
    assert await attempted(queue, claim) == b"ok"
    for _ in range(2):  # a lost answer is asked again
        outcome = await queue.lanes().attempt(
            queue.client,
            claim,
            reply_to=INBOX,
            row_id="row-2",
            row=b"second",
            ended=[("row-1", b"failed-row")],
        )
        assert outcome == b"ok"
    assert await queue.spend_rows() == [b"failed-row"]


async def test_a_worker_that_lost_its_lease_can_neither_record_post_nor_settle(
    queue: Queue,
) -> None:
    claim = await the_claim(queue)
    assert await attempted(queue, claim) == b"ok"
    (taken,) = await reclaimed(queue)
    assert taken.deliveries == 2
    assert taken.attempts == {"row-1": b"lost-row"}
    assert not taken.spoke
    post = Post(request_id=claim.request_id, token=claim.token, frame=b"late")
    assert await attempted(queue, claim) == b"fenced"
    assert await queue.poster.post(queue.client, INBOX, [post]) == [0]
    assert await queue.poster.settle(queue.client, INBOX, [ending(claim)]) == [b"fenced"]
    assert await queue.lanes().give_back(queue.client, claim, ()) == b"fenced"
    assert await queue.replies() == []
    assert await queue.poster.settle(queue.client, INBOX, [ending(taken)]) == [b"ok"]


async def test_a_worker_fenced_before_its_first_attempt_never_sends(queue: Queue) -> None:
    claim = await the_claim(queue)
    await reclaimed(queue)
    assert await attempted(queue, claim) == b"fenced"


async def test_the_first_post_marks_a_job_as_spoken(queue: Queue) -> None:
    claim = await the_claim(queue)
    await attempted(queue, claim)
    post = Post(request_id=claim.request_id, token=claim.token, frame=b"frame")
    await queue.poster.post(queue.client, INBOX, [post])
    await queue.lanes().heartbeat(queue.client, [(claim, INBOX, b"17")])
    (taken,) = await reclaimed(queue)
    assert taken.spoke
    assert taken.progress == b"17"


async def test_a_heartbeat_keeps_a_job_from_being_taken_over(queue: Queue) -> None:
    claim = await the_claim(queue)
    await attempted(queue, claim)
    await reclaimed(queue, "worker-1")  # waits until the server is old enough to judge
    (again,) = await reclaimed(queue, "worker-1")
    await asyncio.sleep(0.3)
    assert await queue.lanes().heartbeat(queue.client, [(again, INBOX, b"0")]) == [b"ok"]
    taken = await queue.lanes("worker-2").reclaim(queue.client, "default", lease_ms=250, at_most=10)
    assert taken == []


async def test_cancelling_an_unattempted_job_removes_it_and_its_claim_is_void(
    queue: Queue,
) -> None:
    claim = await the_claim(queue)
    assert await queue.admission.cancel(queue.client, claim.request_id, "default") == "removed"
    assert await attempted(queue, claim) == b"gone"
    assert await queue.lanes().heartbeat(queue.client, [(claim, INBOX, b"0")]) == [b"gone"]
    pending = await queue.client.call(b"XPENDING", queue.keys.lanes["default"], b"workers")
    assert pending[0] == 0
    assert await queue.client.call(b"GET", queue.keys.sealed_bytes) == b"0"


async def test_a_job_that_waits_too_long_is_removed_unless_a_worker_has_begun_it(
    queue: Queue,
) -> None:
    def expire(claim: Claim) -> Awaitable[str]:
        return queue.admission.cancel(queue.client, claim.request_id, "default", only_waiting=True)

    begun, waiting = await the_claim(queue), await the_claim(queue)
    await attempted(queue, begun)
    assert await expire(waiting) == "removed"
    assert await expire(begun) == "running"
    assert await queue.lanes().heartbeat(queue.client, [(begun, INBOX, b"0")]) == [b"ok"]


async def test_cancelling_a_running_job_tells_its_worker_and_leaves_a_flag(
    valkey_db: str, queue: Queue
) -> None:
    notices: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def subscribe(client: object) -> None:
        await control.call(b"SSUBSCRIBE", queue.keys.control("worker-1"))

    from shared.valkey.client import Client

    control = Client(valkey_db, name="ctl", on_push=notices.put_nowait, on_connect=subscribe)
    claim = await the_claim(queue)
    await attempted(queue, claim)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(control.run())
        await control.connected(5)
        await asyncio.sleep(0.1)
        told = await queue.admission.cancel(queue.client, claim.request_id, "default")
        assert told == "told"
        async with asyncio.timeout(2):
            assert (await notices.get())[2] == b"cancel " + claim.request_id.encode()
        running.cancel()
    assert await queue.lanes().heartbeat(queue.client, [(claim, INBOX, b"0")]) == [b"cancelled"]
    outcome = await queue.lanes().attempt(
        queue.client, claim, reply_to=INBOX, row_id="row-2", row=b"r", ended=()
    )
    assert outcome == b"cancelled"


async def test_an_admission_that_arrives_after_its_cancel_comes_too_late(queue: Queue) -> None:
    header = a_header()
    assert await queue.admission.cancel(queue.client, header.request_id, "default") == "ended"
    admitted = await queue.admission.admit(queue.client, header, b"sealed", QueueLimits())
    assert admitted.outcome == "duplicate"
    assert await queue.claimed() == []


async def test_settling_twice_changes_nothing(queue: Queue) -> None:
    claim = await the_claim(queue)
    end = ending(claim, frames=(b"frame",), rows=(b"row",))
    assert await queue.poster.settle(queue.client, INBOX, [end]) == [b"ok"]
    assert await queue.poster.settle(queue.client, INBOX, [end]) == [b"gone"]
    assert await queue.spend_rows() == [b"row"]
    assert len(await queue.replies()) == 1


async def test_transcripts_are_added_once_by_the_worker_that_settles(queue: Queue) -> None:
    for _ in range(3):
        await queue.admit()
    first, second, third = await queue.claimed()
    stranger = msgspec.structs.replace(third, token=b"9:stranger")
    await attempted(queue, third)
    endings = [
        ending(first, rows=(b"row",), transcripts=(b"t1", b"t2")),
        ending(second, frames=(b"frame",)),
        ending(stranger, transcripts=(b"fenced",)),
    ]
    assert await queue.poster.settle(queue.client, INBOX, endings) == [b"ok", b"ok", b"fenced"]
    assert await queue.poster.settle(queue.client, INBOX, endings[:1]) == [b"gone"]
    assert await queue.transcripts() == [b"t1", b"t2"]
    assert await queue.client.call(b"XLEN", queue.keys.receipts) == 1
    assert await queue.spend_rows() == [b"row"]
    assert [frame for _, frame in await queue.replies()] == [b"frame"]


async def test_many_jobs_are_posted_and_settled_in_one_entry(queue: Queue) -> None:
    for _ in range(20):
        await queue.admit()
    claims = await queue.claimed(slots=150)
    for claim in claims:
        await attempted(queue, claim)
    posts = [Post(request_id=c.request_id, token=c.token, frame=b"f") for c in claims]
    posts[3] = Post(request_id=claims[3].request_id, token=b"9:stranger", frame=b"f")
    assert await queue.poster.post(queue.client, INBOX, posts) == [3]
    length = await queue.client.call(b"XLEN", queue.keys.inbox(INBOX))
    assert length == 1
    assert len(await queue.replies()) == 19
    outcomes = await queue.poster.settle(
        queue.client, INBOX, [ending(c, rows=(b"row",)) for c in claims]
    )
    assert outcomes == [b"ok"] * 20
    assert len(await queue.spend_rows()) == 20


async def test_posting_to_an_inbox_nobody_leases_says_so_and_makes_no_stream(
    queue: Queue,
) -> None:
    claim = await the_claim(queue)
    await attempted(queue, claim)
    lanes: Lanes = queue.lanes()
    assert lanes.keys is queue.keys
    post = Post(request_id=claim.request_id, token=claim.token, frame=b"f")
    impatient = type(queue.poster)(queue.keys, inbox_lease_seconds=0)
    async with asyncio.timeout(5):
        while await impatient.post(queue.client, "nobody", [post]) != [-1]:
            await asyncio.sleep(0.1)  # until the server is older than the lease
            await queue.client.call(b"DEL", queue.keys.inbox("nobody"))
    assert not await queue.client.call(b"EXISTS", queue.keys.inbox("nobody"))


async def test_a_job_nobody_waits_for_is_not_sent_and_not_kept_running(queue: Queue) -> None:
    claim = await the_claim(queue)
    lanes = Lanes(queue.keys, "worker-1", inbox_lease_seconds=0.001)
    await queue.client.call(b"DEL", queue.keys.inbox_lease(INBOX))

    async def outcome() -> bytes:
        return await lanes.attempt(
            queue.client, claim, reply_to=INBOX, row_id="row-1", row=b"r", ended=()
        )

    assert await outcome() == b"ok"  # the server was never asked before: it may just have started
    await asyncio.sleep(0.01)
    assert await outcome() == b"cancelled"
    assert await lanes.heartbeat(queue.client, [(claim, INBOX, b"0")]) == [b"cancelled"]


async def test_a_job_given_back_is_delivered_anew_and_fences_every_older_claim(
    queue: Queue,
) -> None:
    claim = await the_claim(queue)
    await attempted(queue, claim)
    given = await queue.lanes().give_back(queue.client, claim, [("row-1", b"drained-row")])
    assert given == b"ok"
    assert await queue.spend_rows() == [b"drained-row"]
    assert await attempted(queue, claim) == b"fenced"
    (again,) = await queue.claimed("worker-2")
    assert again.request_id == claim.request_id
    assert again.deliveries == 1
    assert await queue.poster.settle(queue.client, INBOX, [ending(again)]) == [b"ok"]
