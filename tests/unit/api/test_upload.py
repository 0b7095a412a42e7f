"""A file on its way to the queue, against a queue that is behind, full, or away."""

import asyncio
from typing import Any

import pytest

from api.body import ClientLeft
from api.upload import MOST_AT_ONCE, Upload, Uploads
from shared.errors import Overloaded
from shared.seal import KEY_BYTES, Seal
from shared.upload import End
from shared.valkey.client import AnswerLost
from shared.valkey.keys import ShardKeys
from shared.valkey.uploads import WINDOW_BYTES

MOST = 1000


class Store:
    """Says what a test wants, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.appended: list[tuple[Any, ...]] = []
        self.waits = 0
        self.waiting = 0
        self.dropped = 0

    async def connected(self, _seconds: float) -> None:
        return

    async def script(self, script: Any, _keys: Any, args: Any) -> Any:
        if script.name.startswith("drop"):
            self.dropped += 1
            return 1
        self.appended.append(tuple(args))
        answer = self.answers.pop(0) if self.answers else b"ok"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def call(self, *_words: Any) -> bytes:
        self.waits += 1
        self.waiting = max(0, self.waiting - WINDOW_BYTES)
        return b"1 %d 0" % self.waiting


class Gate:
    def __init__(self, store: Store) -> None:
        self._store = store

    def queue_of(self, _tenant: str) -> Any:
        return self._store, ShardKeys(0)


def uploads(store: Store) -> Uploads:
    return Uploads(Gate(store), Seal([bytes(KEY_BYTES)]))  # type: ignore[arg-type]


def begun(of: Uploads, *, tenant: str = "t", gone: bool = False, most: int = MOST) -> Upload:
    return of.begin(tenant, "r", max_sealed_bytes=most, is_gone=lambda: gone)


async def test_who_waits_for_room_does_not_send_the_chunk_again_and_again() -> None:
    store = Store(b"full")
    store.waiting = 4 * WINDOW_BYTES
    await begun(uploads(store)).send(b"data")
    assert (len(store.appended), store.waits) == (2, 4)


async def test_who_waits_for_room_notices_that_the_client_has_left() -> None:
    store = Store(b"full")
    store.waiting = 1 << 40
    with pytest.raises(ClientLeft):
        await begun(uploads(store), gone=True).send(b"data")


async def test_a_full_queue_holds_up_what_is_admitted_and_refuses_what_is_not() -> None:
    await begun(uploads(Store(b"memory_full"))).send(b"data")
    with pytest.raises(Overloaded):
        await begun(uploads(Store(b"memory_full"))).keep(b"data")
    with pytest.raises(Overloaded):
        await begun(uploads(Store(b"full"))).keep(b"data")


async def test_an_upload_that_was_swept_is_not_gone_on_with() -> None:
    with pytest.raises(Overloaded):
        await begun(uploads(Store(b"gone"))).finish(End())


async def test_a_lost_answer_is_asked_for_once_more() -> None:
    store = Store(AnswerLost("x"))
    await begun(uploads(store)).send(b"data")
    first, second = store.appended
    assert first == second
    with pytest.raises(Overloaded) as refused:
        await begun(uploads(Store(AnswerLost("x"), AnswerLost("x")))).send(b"data")
    assert refused.value.code == "store_unavailable"


async def test_one_tenant_keeps_no_more_than_its_share() -> None:
    of = uploads(Store())
    first, other = begun(of), begun(of, tenant="other")
    await first.keep(bytes(150))
    with pytest.raises(Overloaded):
        await first.keep(bytes(150))
    await other.keep(bytes(150))
    of.end(first)
    await begun(of).keep(bytes(150))


async def test_a_place_is_taken_with_the_files_first_bytes_and_given_back() -> None:
    of = uploads(Store())
    idle = begun(of)
    holders = [begun(of) for _ in range(MOST_AT_ONCE)]
    for holder in holders:
        holder.take_place()
        holder.take_place()
    with pytest.raises(Overloaded):
        idle.take_place()
    of.end(holders[0])
    idle.take_place()


async def test_what_was_written_is_dropped_and_nothing_else() -> None:
    store = Store()
    of = uploads(store)
    written, untouched = begun(of), begun(of)
    await written.send(b"data")
    of.end(written)
    of.end(untouched)
    running = asyncio.create_task(of.run())
    while not store.dropped:  # noqa: ASYNC110
        await asyncio.sleep(0)
    running.cancel()
    assert store.dropped == 1
