"""The spend streams on a real Valkey: nothing is acknowledged by accident, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.spend import encode_row
from shared.valkey.client import ValkeyAway
from shared.valkey.keys import METERING_GROUP, ShardKeys
from shared.valkey.plain import plain_client
from shared.valkey.spend import ENTRIES_PER_READ, Claim, SpendStream, Undecodable
from tests.spend_rows import spend_row

SHARDS = [ShardKeys(0), ShardKeys(1)]
KEYS = SHARDS[0]


@pytest.fixture
async def valkey(valkey_db: str) -> AsyncIterator[Redis]:
    client = plain_client(valkey_db, name="test")
    yield client
    await client.aclose()


@pytest.fixture
async def stream(valkey_db: str) -> AsyncIterator[SpendStream]:
    stream = SpendStream.connect(valkey_db, [KEYS], "me")
    await stream.ensure_group()
    yield stream
    await stream.close()


@pytest.fixture
async def other(valkey_db: str) -> AsyncIterator[SpendStream]:
    """Another consumer of the same streams."""
    stream = SpendStream.connect(valkey_db, [KEYS], "other")
    yield stream
    await stream.close()


async def add(valkey: Redis, count: int, keys: ShardKeys = KEYS) -> None:
    for at in range(count):
        await add_entry(valkey, [encode_row(spend_row(at))], keys)


async def add_entry(valkey: Redis, rows: list[bytes], keys: ShardKeys = KEYS) -> None:
    """As the scripts do that end attempts."""
    words = [word for row in rows for word in (b"r", row)]
    await valkey.execute_command("XADD", keys.spend, "*", *words)
    await valkey.incrby(keys.spend_rows, len(rows))


def costs(claims: list[Claim]) -> list[int]:
    """Rows are told apart by their cost in nano-dollars."""
    return [
        -1 if isinstance(claim.row, Undecodable) else int(claim.row.cost_usd.scaleb(9))
        for claim in claims
    ]


async def test_rows_written_before_the_group_was_made_are_read(
    valkey: Redis, valkey_db: str
) -> None:
    await add(valkey, 3)
    stream = SpendStream.connect(valkey_db, [KEYS], "me")
    await stream.ensure_group()
    await stream.ensure_group()
    assert costs(await stream.claim(10)) == [0, 1, 2]
    await stream.close()


async def test_a_claim_waits_for_the_first_row(stream: SpendStream, valkey: Redis) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        claimed = group.create_task(stream.claim(10, 3.0))
        await asyncio.sleep(0.1)
        await add(valkey, 1)
    assert costs(claimed.result()) == [0]


async def test_an_acknowledged_entry_is_gone_from_the_stream_and_the_group(
    stream: SpendStream, valkey: Redis
) -> None:
    await add(valkey, 5)
    claims = await stream.claim(10)
    assert await stream.backlog() == {0: 5}
    await stream.ack(claims[:3])
    assert await stream.backlog() == {0: 2}
    assert costs(await stream.own()) == [3, 4]


async def test_more_than_one_command_of_entries_can_be_owned_and_acknowledged(
    stream: SpendStream, valkey: Redis
) -> None:
    async with valkey.pipeline(transaction=False) as many:
        for at in range(2500):
            many.xadd(KEYS.spend, {"r": encode_row(spend_row(at))})
        await many.execute()
    for _ in range(2500 // ENTRIES_PER_READ):
        await stream.claim(1000)
    owned = await stream.own()
    assert costs(owned) == list(range(2500))
    await stream.ack(owned)
    assert (await stream.own(), await stream.backlog()) == ([], {0: 0})


async def test_entries_that_are_no_rows_are_told_with_their_reason(
    stream: SpendStream, valkey: Redis
) -> None:
    await valkey.xadd(KEYS.spend, {"r": b"\xc1"})
    await valkey.xadd(KEYS.spend, {"x": b"y"})
    await valkey.xadd(KEYS.spend, {"r": encode_row(spend_row(1))})
    claims = await stream.claim(10)
    reasons = [claim.row.reason for claim in claims if isinstance(claim.row, Undecodable)]
    assert costs(claims) == [-1, -1, 1]
    assert reasons[1] == "the entry has other fields than `r`"


async def test_a_quarantined_entry_is_kept_whole_beside_the_stream(
    stream: SpendStream, valkey: Redis
) -> None:
    await valkey.xadd(KEYS.spend, {"r": b"\xc1"})
    row = spend_row(7)
    await valkey.xadd(KEYS.spend, {"r": encode_row(row)})
    broken, whole = await stream.claim(10)
    await stream.quarantine(broken, "unreadable")
    await stream.quarantine(whole, "refused")
    assert (await stream.own(), await stream.backlog()) == ([], {0: 0})
    kept = [fields for _, fields in await valkey.xrange(KEYS.spend_quarantine)]
    assert kept == [
        {b"r": b"\xc1", b"entry": broken.entry, b"reason": b"unreadable"},
        {b"r": encode_row(row), b"entry": whole.entry, b"reason": b"refused"},
    ]


async def test_an_entry_of_several_rows_goes_with_the_last_of_them(
    stream: SpendStream, valkey: Redis
) -> None:
    await add_entry(valkey, [encode_row(spend_row(at)) for at in range(3)])
    claims = await stream.claim(10)
    assert costs(claims) == [0, 1, 2]
    await stream.ack(claims[:1])
    await stream.ack(claims[1:2])
    assert await stream.backlog() == {0: 3}
    await stream.ack(claims[2:])
    assert (await stream.own(), await stream.backlog()) == ([], {0: 0})


async def test_after_a_lost_connection_all_rows_of_an_entry_are_due_again(
    stream: SpendStream, valkey: Redis
) -> None:
    await add_entry(valkey, [encode_row(spend_row(at)) for at in range(2)])
    claims = await stream.claim(10)
    await stream.ack(claims[:1])
    again = await stream.own()
    assert costs(again) == [0, 1]
    await stream.ack(again[1:])
    assert costs(await stream.own()) == [0, 1]


async def test_one_bad_row_is_set_aside_and_its_neighbours_stay(
    stream: SpendStream, valkey: Redis
) -> None:
    await add_entry(valkey, [encode_row(spend_row(1)), b"\xc1", encode_row(spend_row(2))])
    claims = await stream.claim(10)
    assert costs(claims) == [1, -1, 2]
    await stream.quarantine(claims[1], "unreadable")
    assert await valkey.xlen(KEYS.spend) == 1
    await stream.ack([claims[0], claims[2]])
    assert await valkey.xlen(KEYS.spend) == 0
    ((_, kept),) = await valkey.xrange(KEYS.spend_quarantine)
    assert kept[b"r"] == b"\xc1"


async def test_an_acknowledgement_that_is_asked_again_is_counted_once(
    stream: SpendStream, valkey: Redis
) -> None:
    await add_entry(valkey, [encode_row(spend_row(at)) for at in range(3)])
    await add(valkey, 2)
    claims = await stream.claim(1)
    await stream.ack(claims)
    await stream.ack(claims)
    assert await stream.backlog() == {0: 2}


async def test_a_backlog_that_was_miscounted_is_right_once_the_stream_is_empty(
    stream: SpendStream, valkey: Redis
) -> None:
    await add(valkey, 2)
    claims = await stream.claim(2)
    await valkey.xdel(KEYS.spend, claims[0].entry)
    assert await stream.backlog() == {0: 2}
    await stream.ack(claims)
    assert await stream.backlog() == {0: 0}


async def test_a_silent_consumers_entries_are_taken_over(
    stream: SpendStream, other: SpendStream, valkey: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(valkey, 3)
    await other.claim(2)
    await asyncio.sleep(0.1)
    monkeypatch.setattr(stream, "_uptime", _long_ago)
    assert costs(await stream.reclaim(5.0, 10)) == []
    assert costs(await stream.reclaim(0.05, 10)) == [0, 1]
    assert await other.own() == []


async def _long_ago() -> float:
    return 1e6


async def test_nobody_is_judged_by_idle_time_that_ran_while_the_server_was_down(
    stream: SpendStream, other: SpendStream, valkey: Redis
) -> None:
    await add(valkey, 1)
    await other.claim(1)
    longer_than_up = await stream._uptime() + 10
    (held,) = await other.own()
    idle_ms = int((longer_than_up + 10) * 1000)
    await valkey.xclaim(
        KEYS.spend, METERING_GROUP, "other", 0, [held.entry], idle=idle_ms, justid=True
    )
    assert await stream.reclaim(longer_than_up, 10) == []


async def test_an_entry_deleted_while_pending_leaves_no_note_behind(
    stream: SpendStream, valkey: Redis
) -> None:
    await add(valkey, 2)
    gone, kept = await stream.claim(10)
    await valkey.xdel(KEYS.spend, gone.entry)
    assert [claim.entry for claim in await stream.own()] == [kept.entry]
    assert (await valkey.xpending(KEYS.spend, METERING_GROUP))["pending"] == 1


async def test_several_shards_are_one_stream(valkey: Redis, valkey_db: str) -> None:
    stream = SpendStream.connect(valkey_db, SHARDS, "me")
    await stream.ensure_group()
    assert await stream.claim(10, 0.01) == []
    for keys in SHARDS:
        await add(valkey, 2, keys)
    claims = await stream.claim(3)
    claims += await stream.claim(3)
    assert [claim.shard for claim in claims] == [0, 0, 1, 1]
    await stream.quarantine(claims[3], "no")
    await stream.ack(claims[:3])
    assert await stream.backlog() == {0: 0, 1: 0}
    assert await valkey.xlen(SHARDS[1].spend_quarantine) == 1
    await stream.close()


async def test_leaving_keeps_the_name_of_a_consumer_that_still_holds_rows(
    stream: SpendStream, valkey: Redis
) -> None:
    await add(valkey, 1)
    claims = await stream.claim(1)
    await stream.leave()
    assert len(await valkey.xinfo_consumers(KEYS.spend, METERING_GROUP)) == 1
    await stream.ack(claims)
    await stream.leave()
    assert await valkey.xinfo_consumers(KEYS.spend, METERING_GROUP) == []


async def test_a_server_that_lost_its_streams_counts_as_away_until_they_are_made(
    stream: SpendStream, valkey: Redis
) -> None:
    await valkey.flushdb()
    with pytest.raises(ValkeyAway):
        await stream.claim(1)
    await stream.ensure_group()
    assert await stream.claim(1) == []


async def test_a_closed_port_is_an_absence() -> None:
    stream = SpendStream.connect("redis://127.0.0.1:9/0", [KEYS], "me")
    with pytest.raises(ValkeyAway):
        await stream.claim(1)
    await stream.close()
