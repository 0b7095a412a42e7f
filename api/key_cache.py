"""Key records in this process: valid for one second from the start of their Postgres read.

A key in use is read again before its second is over, together with all others in use, so a busy
key never waits. Keys asked for the first time wait for the next read, which fetches everything
that gathered meanwhile. Nothing outlives its second: with Postgres away, every key stops working
within it. Absent keys are remembered for the same second, in a bounded table, so that a stranger
who makes keys up costs one query a turn and no memory.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from shared.clock import Clock
from shared.errors import Overloaded
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.keys import KeyRecord

VALID_SECONDS = 1.0
"""The promise of the API page: what is revoked stops working everywhere within it."""
REFRESH_SECONDS = 0.4
"""Half a second of the valid one is left for a refresh that is late."""
ANSWER_SECONDS = 2.5
"""The read under way and the next one, each bounded by the valid second, and some air."""
IN_USE_SECONDS = 10.0
"""A key not asked for this long is no longer refreshed."""
MAX_ABSENT = 10_000
MAX_WANTED = 10_000
"""First-time keys waiting for the next read; more are refused until it is done."""
BATCH = 1_000
"""Keys per query."""
MARK_SECONDS = 60.0
"""How often the keys that were used are handed to `mark_used`."""

log = structlog.get_logger()


class KeyReader(Protocol):
    """Raises one of STORE_ERRORS."""

    async def fetch_many(self, public_ids: Sequence[str]) -> dict[str, KeyRecord]: ...

    async def mark_used(self, public_ids: Iterable[str]) -> None: ...


class Entry:
    """A key that exists, as of its last read."""

    __slots__ = ("record", "used_at", "valid_until")

    def __init__(self, record: KeyRecord, valid_until: float, used_at: float) -> None:
        self.record = record
        self.valid_until = valid_until
        """On the monotonic clock; before the key's own expiry too."""
        self.used_at = used_at


class KeyCache:
    """`run()` must be running for `get` to answer."""

    def __init__(self, reader: KeyReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._entries: dict[bytes, Entry] = {}
        self._absent: OrderedDict[bytes, float] = OrderedDict()
        self._wanted: dict[bytes, asyncio.Future[KeyRecord | None]] = {}
        self._wake = asyncio.Event()
        self._used: set[str] = set()
        self._complained = False

    def cached(self, public_id: bytes) -> KeyRecord | None:
        """The record, if it is known and still valid. Never waits."""
        entry = self._entries.get(public_id)
        if entry is None:
            return None
        now = self._clock.monotonic()
        if now >= entry.valid_until:
            return None
        entry.used_at = now
        return entry.record

    async def get(self, public_id: bytes) -> KeyRecord | None:
        """The record, or None where there is no such key. Raises Overloaded: store_unavailable."""
        record = self.cached(public_id)
        if record is not None or self._is_absent(public_id):
            return record
        waiting = self._wanted.get(public_id)
        if waiting is None:
            waiting = self._want(public_id)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # Shielded: many may wait for one read; one that leaves must not end it for others.
                return await asyncio.shield(waiting)
        except TimeoutError as error:
            raise _away() from error

    def _is_absent(self, public_id: bytes) -> bool:
        valid_until = self._absent.get(public_id)
        return valid_until is not None and self._clock.monotonic() < valid_until

    def _want(self, public_id: bytes) -> asyncio.Future[KeyRecord | None]:
        if len(self._wanted) >= MAX_WANTED:
            raise _away()
        waiting: asyncio.Future[KeyRecord | None] = asyncio.get_running_loop().create_future()
        self._wanted[public_id] = waiting
        self._wake.set()
        return waiting

    async def run(self) -> None:
        """Reads wanted keys, refreshes used ones. Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve())
                group.create_task(self._refresh())
                group.create_task(self._mark())
        finally:
            self._refuse(self._wanted)

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._wanted = self._wanted, {}
            try:
                for batch in _batches(list(wanted)):
                    await self._read_wanted(batch, wanted)
            finally:
                self._refuse(wanted)

    async def _read_wanted(
        self, batch: list[bytes], wanted: dict[bytes, asyncio.Future[KeyRecord | None]]
    ) -> None:
        try:
            records = await self._read(batch)
        except STORE_ERRORS as error:
            self._complain(error)
            return  # what is left unanswered is refused by the caller
        now = self._clock.monotonic()
        for public_id in batch:
            record = records.get(public_id)
            if record is not None:
                self._entries[public_id].used_at = now
            if not (waiting := wanted[public_id]).done():
                waiting.set_result(record)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Forgets what nobody uses, reads the rest again."""
        oldest = self._clock.monotonic() - IN_USE_SECONDS
        self._used.update(
            entry.record.public_id for entry in self._entries.values() if entry.used_at > oldest
        )
        for public_id in [key for key, entry in self._entries.items() if entry.used_at <= oldest]:
            del self._entries[public_id]
        try:
            for batch in _batches(list(self._entries)):
                await self._read(batch)
        except STORE_ERRORS as error:
            self._complain(error)

    async def _read(self, batch: list[bytes]) -> dict[bytes, KeyRecord]:
        """Reads and remembers. The second begins before the query, not with its answer."""
        started = self._clock.monotonic()
        async with asyncio.timeout(VALID_SECONDS):
            found = await self._reader.fetch_many([key.decode() for key in batch])
        self._complained = False
        records = {public_id.encode(): record for public_id, record in found.items()}
        for public_id in batch:
            self._remember(public_id, records.get(public_id), started + VALID_SECONDS)
        return records

    def _remember(self, public_id: bytes, record: KeyRecord | None, valid_until: float) -> None:
        known = self._entries.get(public_id)
        if known is not None and known.valid_until > valid_until:
            return  # a read that began later has answered first
        if record is None:
            self._entries.pop(public_id, None)
            self._absent[public_id] = valid_until
            self._absent.move_to_end(public_id)
            if len(self._absent) > MAX_ABSENT:
                self._absent.popitem(last=False)
            return
        self._absent.pop(public_id, None)
        used_at = known.used_at if known is not None else self._clock.monotonic()
        self._entries[public_id] = Entry(record, self._cut(record, valid_until), used_at)

    def _cut(self, record: KeyRecord, valid_until: float) -> float:
        """A key that expires sooner is asked for again then, and found expired."""
        if record.expires_at is None:
            return valid_until
        left = record.expires_at - self._clock.now()
        # One that has expired already is kept like any other: its answer is a refusal.
        return min(valid_until, self._clock.monotonic() + left) if left > 0 else valid_until

    async def _mark(self) -> None:
        while True:
            await asyncio.sleep(MARK_SECONDS)
            await self.mark()

    async def mark(self) -> None:
        """Hands on which keys were used; a failure loses a mark, which only people read."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            async with asyncio.timeout(VALID_SECONDS * 5):
                await self._reader.mark_used(used)
        except STORE_ERRORS as error:
            self._complain(error)

    def _refuse(self, wanted: dict[bytes, asyncio.Future[KeyRecord | None]]) -> None:
        for waiting in wanted.values():
            if not waiting.done():
                waiting.set_exception(_away())
                waiting.exception()  # its caller may have left: no warning about it

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning("Keys cannot be read", action="keys_unread", error=type(error).__name__)


def _away() -> Overloaded:
    return Overloaded("The key store is not available.", code="store_unavailable")


def _batches(public_ids: list[bytes]) -> Iterable[list[bytes]]:
    return (public_ids[at : at + BATCH] for at in range(0, len(public_ids), BATCH))
