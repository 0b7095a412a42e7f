"""The transparency log on a real Postgres: gapless, append-only, never forked, whole after any kill."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

import shared
from shared.attestation.merkle import (
    CompactRange,
    verify_consistency,
    verify_inclusion,
)
from shared.attestation.signing import ReceiptKey, key_id_of, verify_head
from shared.clock import StillClock
from shared.errors import InvalidRequest
from shared.postgres.engine import STORE_ERRORS, make_engine
from shared.postgres.migrate import migrate
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import LOCK_KEY, LogBroken, LogReader, TransparencyLog
from tests.integration.receipts import settle_many, settled, transcript

ROOT = Path(shared.__file__).parent.parent
SEED = b"\x07" * 32
KEY = ReceiptKey(SEED)
APPENDER = f"""
import asyncio, sys
from shared.attestation.signing import ReceiptKey
from shared.clock import SystemClock
from shared.postgres.engine import make_engine
from shared.postgres.transparency_log import TransparencyLog

async def main():
    writer = TransparencyLog(make_engine(sys.argv[1], "test"), ReceiptKey({SEED!r}), SystemClock())
    await writer.append(3)
    print("ready", flush=True)
    while True:
        await writer.append(3)

asyncio.run(main())
"""


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def receipts(engine) -> ReceiptStore:
    return ReceiptStore(engine)


@pytest.fixture
def clock() -> StillClock:
    return StillClock(1_800_000_000.125)


@pytest.fixture
def writer(engine, clock) -> TransparencyLog:
    return TransparencyLog(engine, KEY, clock)


@pytest.fixture
def log(engine) -> LogReader:
    return LogReader(engine)


async def rows(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def leaves(engine: AsyncEngine) -> list[bytes]:
    """In the order of the log; fails where an index is missing, or a receipt has two."""
    found = await rows(
        engine,
        "SELECT log_index, leaf_hash FROM receipts WHERE log_index IS NOT NULL ORDER BY log_index",
    )
    assert [index for index, _ in found] == list(range(len(found)))
    return [leaf for _, leaf in found]


async def check_whole(engine: AsyncEngine) -> int:
    """Every node, head and proof is that of the leaves in their order; how many there are."""
    found, tree, nodes, roots = await leaves(engine), CompactRange(), [], [CompactRange().root()]
    for leaf in found:
        nodes += [(*place, value) for place, value in tree.append(leaf)]
        roots.append(tree.root())
    stored = await rows(engine, "SELECT level, position, hash FROM log_nodes")
    assert sorted(stored) == sorted(nodes)
    log, size = LogReader(engine), 0
    for (next_size,) in await rows(engine, "SELECT tree_size FROM log_heads ORDER BY tree_size"):
        head = await log.head(next_size)
        assert head is not None
        assert verify_head(head, KEY.public_key)
        assert head.root_hash == roots[next_size].hex()
        proof = await log.consistency(size, next_size)
        assert verify_consistency(size, next_size, roots[size], roots[next_size], proof)
        size = next_size
    assert size == len(found)
    return size


async def test_receipts_are_taken_in_the_order_they_were_settled_in(receipts, writer, log, engine):
    assert await log.head() is None
    assert await writer.append(10) is None
    await receipts.begin([transcript()])  # pending: not taken
    first = await settle_many(receipts, 3)
    await settle_many(receipts, 4)
    head = await writer.append(5)
    assert (head.tree_size, head.timestamp) == (5, 1_800_000_000_125)
    assert await log.head() == head
    indexes = await rows(
        engine, "SELECT receipt_id, log_index FROM receipts WHERE log_index < 3 ORDER BY 2"
    )
    assert [receipt.hex for receipt, _ in indexes] == sorted(first)
    assert (await writer.append(5)).tree_size == 7
    assert await writer.append(5) is None
    assert await check_whole(engine) == 7


async def test_what_the_log_has_can_be_proven_at_every_size(receipts, writer, log, engine):
    sizes = (1, 2, 1, 4, 8, 3)
    for count in sizes:
        await settle_many(receipts, count)
        await writer.append(100)
    known, total = await leaves(engine), sum(sizes)
    for size in range(1, total + 1):
        root = await log.root(size)
        for index in {0, size // 2, size - 1}:
            proof = await log.inclusion(index, size)
            assert verify_inclusion(known[index], index, size, proof, root)
        proof = await log.consistency(size, total)
        assert verify_consistency(size, total, root, await log.root(total), proof)
    assert await log.head(3) is not None
    assert await log.head(5) is None


async def test_what_the_log_does_not_have_is_refused(receipts, writer, log):
    await settle_many(receipts, 2)
    for asked in (log.root(1), log.inclusion(0, 1), log.consistency(0, 1)):
        with pytest.raises(InvalidRequest, match="not that large"):
            await asked
    await writer.append(10)
    for asked in (log.inclusion(2, 2), log.inclusion(-1, 2), log.inclusion(0, 0)):
        with pytest.raises(InvalidRequest, match="no such leaf"):
            await asked
    for asked in (log.inclusion(0, 3), log.consistency(1, 3), log.inclusion(0, 2**62)):
        with pytest.raises(InvalidRequest, match="not that large"):
            await asked
    for first, second in ((2, 1), (-1, 1)):
        with pytest.raises(InvalidRequest, match="must not be above"):
            await log.consistency(first, second)


async def test_a_proof_takes_one_query_for_its_nodes(receipts, writer, log, engine):
    await settle_many(receipts, 200)
    await writer.append(1000)
    seen: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    await log.inclusion(77, 200)
    await log.consistency(77, 200)
    assert len([one for one in seen if "log_nodes" in one]) == 2
    assert len(seen) == 4


async def test_the_keys_of_the_log_are_published(receipts, writer, log, engine, clock):
    await settle_many(receipts, 1)
    await writer.append(1)
    assert [(key.key_id, key.public_key) for key in await log.keys()] == [
        (KEY.key_id, KEY.public_key)
    ]
    other = ReceiptKey(b"\x08" * 32)
    await settle_many(receipts, 1)
    head = await TransparencyLog(engine, other, clock).append(1)
    assert head is not None
    assert head.key_id == other.key_id
    known = {key.key_id: key.public_key for key in await log.keys()}
    assert known == {KEY.key_id: KEY.public_key, other.key_id: other.public_key}
    assert all(key_id_of(public_key) == key_id for key_id, public_key in known.items())
    assert verify_head(head, known[head.key_id])


async def test_a_failure_at_any_statement_leaves_nothing_of_an_append(receipts, writer, engine):
    await settle_many(receipts, 3)
    await writer.append(10)
    await settle_many(receipts, 6)
    failed_at, countdown = 0, 0

    def fail(*_: object) -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            raise RuntimeError("killed")

    # The statements of an append, and at last its commit.
    for name in ("before_cursor_execute", "commit"):
        event.listen(engine.sync_engine, name, fail)
    for step in range(1, 50):
        countdown = step
        try:
            head = await writer.append(10)
        except RuntimeError:
            failed_at = step
            countdown = 0
            assert await check_whole(engine) == 3
        else:
            countdown = 0
            assert head.tree_size == 9
            break
    assert failed_at >= 8
    assert await check_whole(engine) == 9


async def test_a_connection_that_is_cut_within_an_append_leaves_nothing(
    receipts, writer, engine, database_url
):
    await settle_many(receipts, 5)
    other, cut = make_engine(database_url, "test"), asyncio.Event()

    async def cut_it() -> None:
        await cut.wait()
        async with other.begin() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks"
                    " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                )
            )

    def hold(_connection, _cursor, statement, *_rest) -> None:
        if "log_heads" in statement and "INSERT" in statement:
            cut.set()

    # The table is held, so that the last insert waits, and is cut.
    async with other.begin() as holder:
        await holder.execute(text("LOCK TABLE log_heads IN SHARE MODE"))
        event.listen(engine.sync_engine, "before_cursor_execute", hold)
        task = asyncio.ensure_future(cut_it())
        with pytest.raises(STORE_ERRORS):
            await writer.append(5)
        await task
        event.remove(engine.sync_engine, "before_cursor_execute", hold)
    await other.dispose()
    assert await check_whole(engine) == 0
    assert (await writer.append(5)).tree_size == 5
    assert await check_whole(engine) == 5


async def test_an_append_that_finds_another_at_it_leaves_it_alone(receipts, writer, engine):
    await settle_many(receipts, 1)
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        assert await writer.append(1) is None
        await other.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
    assert (await writer.append(1)).tree_size == 1


async def test_without_the_lock_the_tables_refuse_a_fork(
    receipts, database_url, engine, clock, monkeypatch
):
    """What the lock is for is that nobody fails; that nobody forks does not rest on it."""
    await settle_many(receipts, 40)
    monkeypatch.setattr(func, "pg_try_advisory_xact_lock", lambda _key: text("true"), raising=False)
    engines = [make_engine(database_url, "test") for _ in range(4)]
    refused = 0

    async def work(own: AsyncEngine) -> None:
        nonlocal refused
        writer = TransparencyLog(own, KEY, clock)
        while True:
            try:
                if await writer.append(2) is None:
                    return
            except IntegrityError:
                refused += 1

    async with asyncio.timeout(60):
        await asyncio.gather(*map(work, engines))
    for own in engines:
        await own.dispose()
    assert refused
    assert await check_whole(engine) == 40


async def test_many_who_settle_and_append_at_once_make_one_log(
    receipts, database_url, engine, clock
):
    engines = [make_engine(database_url, "test") for _ in range(4)]
    settling = True

    async def settle() -> None:
        for _ in range(20):
            await settle_many(receipts, random.randint(1, 9))

    async def append(own: AsyncEngine) -> int:
        writer, taken = TransparencyLog(own, KEY, clock), 0
        while True:
            was_settling = settling
            if await writer.append(7) is not None:
                taken += 1
            elif not was_settling:
                return taken
            await asyncio.sleep(0)

    async def settle_all() -> None:
        nonlocal settling
        await asyncio.gather(settle(), settle())
        settling = False

    async with asyncio.timeout(60):
        _, *taken = await asyncio.gather(settle_all(), *map(append, engines))
    for own in engines:
        await own.dispose()
    while await TransparencyLog(engine, KEY, clock).append(100) is not None:
        pass
    assert sum(1 for one in taken if one) >= 2  # more than one of them took a part
    total = (await rows(engine, "SELECT count(*) FROM receipts"))[0][0]
    assert await check_whole(engine) == total


async def test_processes_that_are_killed_again_and_again_leave_one_whole_log(
    receipts, database_url, engine, clock
):
    await settle_many(receipts, 400)
    chance, kills = random.Random(7), 0
    async with asyncio.timeout(120):
        while kills < 8:
            pair = await asyncio.gather(*(_appender(database_url) for _ in range(2)))
            for process in pair:
                await asyncio.sleep(chance.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
                await process.wait()
                kills += 1
            await settle_many(receipts, 20)
            await check_whole(engine)
    taken = await check_whole(engine)
    assert taken > 0
    writer = TransparencyLog(engine, KEY, clock)
    async with asyncio.timeout(30):  # the killed ones' connections may hold the lock a moment more
        while await check_whole(engine) < 400 + 20 * kills // 2:
            await writer.append(1000)


async def _appender(database_url: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPENDER, database_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_a_tree_that_was_tampered_with_is_not_signed_again(receipts, writer, log, engine):
    await settle_many(receipts, 5)
    await writer.append(5)
    await settle_many(receipts, 1)
    for damage in (
        "UPDATE log_nodes SET hash = sha256('x') WHERE level = 2",
        "DELETE FROM log_nodes WHERE level = 2",
    ):
        async with engine.begin() as connection:
            await connection.execute(text(damage))
        with pytest.raises(LogBroken):
            await writer.append(5)
    with pytest.raises(LogBroken):
        await log.inclusion(4, 5)
    assert (await log.head()).tree_size == 5


async def test_an_index_and_what_was_settled_stay_together(receipts, engine):
    call = transcript()
    await receipts.begin([call])
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE receipts SET log_index = 0"))
    await receipts.settle([settled(call.receipt_id)])
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE receipts SET log_index = -1"))
