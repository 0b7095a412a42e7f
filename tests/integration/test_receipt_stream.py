"""The streams of transcripts on a real Valkey: claimed once, renewed, and gone with their last one."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.transcript import Transcript, encode_transcript
from shared.valkey.keys import BACKGROUND_GROUP, ShardKeys
from shared.valkey.receipts import Claimed, ReceiptStream
from tests.integration.queue import Queue
from tests.transcripts import a_transcript

SHARDS = [ShardKeys(0), ShardKeys(1)]
KEYS = SHARDS[0]


async def stream_of(
    queue: Queue, consumer: str = "me", shards: Sequence[ShardKeys] = (KEYS,)
) -> ReceiptStream:
    stream = ReceiptStream(queue.client, shards, consumer)
    await stream.ensure_groups()
    return stream


async def add(queue: Queue, *transcripts: bytes, keys: ShardKeys = KEYS) -> None:
    """One entry, as the script writes it that ends jobs."""
    words = [word for one in transcripts for word in (b"t", one)]
    await queue.client.call(b"XADD", keys.receipts, b"*", *words)


def some(count: int) -> list[Transcript]:
    return [a_transcript() for _ in range(count)]


def packed(transcripts: list[Transcript]) -> list[bytes]:
    return [encode_transcript(one) for one in transcripts]


def ids(claimed: list[Claimed]) -> list[str]:
    return [one.transcript.receipt_id for one in claimed]


async def pending(queue: Queue) -> int:
    summary = await queue.client.call(b"XPENDING", KEYS.receipts, BACKGROUND_GROUP)
    return int(summary[0])


async def _long_ago() -> float:
    return 1e6


async def test_all_transcripts_of_an_entry_are_claimed_in_their_order(queue: Queue) -> None:
    first, second = some(3), some(1)
    await add(queue, *packed(first))
    stream = await stream_of(queue)
    await stream.ensure_groups()
    await add(queue, *packed(second))
    claimed = await stream.claim(10)
    assert [one.transcript for one in claimed] == [*first, *second]
    assert [one.index for one in claimed] == [0, 1, 2, 0]
    assert await stream.claim(10) == []


async def test_room_bounds_the_entries_of_one_claim(queue: Queue) -> None:
    stream = await stream_of(queue)
    for one in packed(some(3)):
        await add(queue, one)
    assert len(await stream.claim(2)) == 2
    assert len(await stream.claim(2)) == 1


async def test_an_entry_goes_with_the_last_of_its_transcripts(queue: Queue) -> None:
    stream = await stream_of(queue)
    await add(queue, *packed(some(3)))
    claimed = await stream.claim(10)
    await stream.end(claimed[2:])
    await stream.end(claimed[:1])
    await stream.end(claimed[:1])  # ended twice, it still counts once
    assert (await stream.backlog(), await pending(queue)) == ({0: 1}, 1)
    await stream.end(claimed[1:2])
    assert (await stream.backlog(), await pending(queue)) == ({0: 0}, 0)


async def test_more_than_one_command_of_entries_can_be_ended(queue: Queue) -> None:
    stream = await stream_of(queue)
    for one in packed(some(1100)):
        await add(queue, one)
    claimed = await stream.claim(2000)
    assert await stream.renew(claimed) == set()
    await stream.end(claimed)
    assert (await stream.backlog(), await pending(queue)) == ({0: 0}, 0)


async def test_what_cannot_be_read_is_set_aside_and_its_neighbours_stay(queue: Queue) -> None:
    stream = await stream_of(queue)
    whole = some(2)
    await add(queue, packed(whole)[0], b"\xc1", packed(whole)[1])
    claimed = await stream.claim(10)
    assert [one.transcript for one in claimed] == whole
    ((_, fields),) = await queue.client.call(b"XRANGE", KEYS.receipts_quarantine, b"-", b"+")
    assert dict(zip(fields[::2], fields[1::2], strict=True))[b"r"] == b"\xc1"
    await stream.end(claimed)
    assert await stream.backlog() == {0: 0}


async def test_an_entry_of_nothing_that_can_be_read_does_not_stay(queue: Queue) -> None:
    stream = await stream_of(queue)
    await add(queue, b"\xc1", b"\x90")
    assert await stream.claim(10) == []
    assert (await stream.backlog(), await pending(queue)) == ({0: 0}, 0)
    assert await queue.client.call(b"XLEN", KEYS.receipts_quarantine) == 2


async def test_what_nobody_renewed_is_taken_over_and_what_somebody_did_is_not(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, other = await stream_of(queue), await stream_of(queue, "other")
    monkeypatch.setattr(stream, "_uptime", _long_ago)
    for one in packed(some(2)):
        await add(queue, one)
    kept, left = await other.claim(10)
    await asyncio.sleep(0.3)
    assert await other.renew([kept]) == set()
    taken = await stream.take_over(0.25, 10)
    assert ids(taken) == ids([left])
    assert await other.renew([kept, left]) == {(0, left.entry)}


async def test_what_was_lost_is_not_ended_by_its_loser(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, other = await stream_of(queue), await stream_of(queue, "other")
    monkeypatch.setattr(stream, "_uptime", _long_ago)
    await add(queue, *packed(some(2)))
    lost = await other.claim(10)
    await asyncio.sleep(0.05)
    taken = await stream.take_over(0.02, 10)
    await other.renew(lost)
    await other.end(lost[:1])
    assert await stream.backlog() == {0: 1}
    await stream.end(taken)
    assert await stream.backlog() == {0: 0}


async def test_a_process_takes_over_what_it_left_itself_and_all_of_it_is_due_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await stream_of(queue)
    monkeypatch.setattr(stream, "_uptime", _long_ago)
    await add(queue, *packed(some(2)))
    claimed = await stream.claim(10)
    await stream.end(claimed[:1])
    await asyncio.sleep(0.05)
    again = await stream.take_over(0.02, 10)
    assert ids(again) == ids(claimed)
    await stream.end(again[1:])
    assert await stream.backlog() == {0: 1}
    await stream.end(again[:1])
    assert await stream.backlog() == {0: 0}


async def test_takeovers_walk_past_what_is_renewed(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, other = await stream_of(queue), await stream_of(queue, "other")
    monkeypatch.setattr(stream, "_uptime", _long_ago)
    for one in packed(some(60)):
        await add(queue, one)
    *kept, left = await other.claim(100)
    await asyncio.sleep(0.6)
    await other.renew(kept)
    found: list[Claimed] = []
    for _ in range(10):  # one look goes over ten entries for each it may take
        found += await stream.take_over(0.5, 1)
    assert ids(found) == ids([left])


async def test_nobody_is_judged_by_idle_time_that_ran_while_the_server_was_down(
    queue: Queue,
) -> None:
    stream = await stream_of(queue)
    await add(queue, *packed(some(1)))
    [held] = await stream.claim(1)
    longer_than_up = await stream._uptime() + 10
    idle_ms = int((longer_than_up + 10) * 1000)
    await queue.client.call(
        *(b"XCLAIM", KEYS.receipts, BACKGROUND_GROUP, b"me", 0, held.entry, b"IDLE", idle_ms)
    )
    assert await stream.take_over(longer_than_up, 10) == []


async def test_several_shards_are_one_stream(queue: Queue) -> None:
    stream = await stream_of(queue, shards=SHARDS)
    for keys in SHARDS:
        await add(queue, *packed(some(1)), keys=keys)
    claimed = await stream.claim(10)
    assert [one.shard for one in claimed] == [0, 1]
    assert await stream.renew(claimed) == set()
    await stream.end(claimed)
    assert await stream.backlog() == {0: 0, 1: 0}


async def test_leaving_keeps_the_name_of_who_still_holds_something(queue: Queue) -> None:
    stream = await stream_of(queue)
    await add(queue, *packed(some(1)))
    claimed = await stream.claim(1)
    await stream.leave()
    assert (
        len(await queue.client.call(b"XINFO", b"CONSUMERS", KEYS.receipts, BACKGROUND_GROUP)) == 1
    )
    await stream.end(claimed)
    await stream.leave()
    assert await queue.client.call(b"XINFO", b"CONSUMERS", KEYS.receipts, BACKGROUND_GROUP) == []
