"""Records of Postgres in this process: valid for one second from the start of their read.

A record in use is read again before its second is over, together with all others in use, so that
who is busy never waits. Those asked for the first time wait for the next read, which fetches
everything that gathered meanwhile. Nothing outlives its second: with Postgres away, every key stops
working within it. Absent ones are remembered for the same second, in a bounded table, so that a
stranger who makes names up costs one query a turn and no memory.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from shared.clock import Clock
from shared.errors import Overloaded
from shared.postgres.engine import STORE_ERRORS

VALID_SECONDS = 1.0
"""The promise of the API page: what is revoked stops working everywhere within it."""
REFRESH_SECONDS = 0.4
"""Half a second of the valid one is left for a refresh that is late."""
ANSWER_SECONDS = 2.5
"""The read under way and the next one, each bounded by the valid second, and some air."""
IN_USE_SECONDS = 10.0
"""A record not asked for this long is no longer refreshed."""
MAX_ABSENT = 10_000
MAX_WANTED = 10_000
"""First-time names waiting for the next read; more are refused until it is done."""
BATCH = 1_000
"""Names per query."""

Name = TypeVar("Name", bound=Hashable)
Record = TypeVar("Record")
Fetch = Callable[[Sequence[Name]], Awaitable[Mapping[Name, Record]]]
"""The records that exist of those named. Raises one of STORE_ERRORS."""

log = structlog.get_logger()


class Entry(Generic[Record]):
    """A record that exists, as of its last read."""

    __slots__ = ("record", "used_at", "valid_until")

    def __init__(self, record: Record, valid_until: float, used_at: float) -> None:
        self.record = record
        self.valid_until = valid_until
        """On the monotonic clock."""
        self.used_at = used_at


class RecordCache(Generic[Name, Record]):
    """`run()` must be running for `get` to answer."""

    def __init__(self, fetch: Fetch[Name, Record], clock: Clock, *, what: str) -> None:
        """`what` the records are, in the plural, for the log."""
        self._fetch = fetch
        self._clock = clock
        self._what = what
        self._entries: dict[Name, Entry[Record]] = {}
        self._absent: OrderedDict[Name, float] = OrderedDict()
        self._wanted: dict[Name, asyncio.Future[Record | None]] = {}
        self._wake = asyncio.Event()
        self._complained = False

    def cached(self, name: Name) -> Record | None:
        """The record, if it is known and still valid. Never waits."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        now = self._clock.monotonic()
        if now >= entry.valid_until:
            return None
        entry.used_at = now
        return entry.record

    async def get(self, name: Name) -> Record | None:
        """The record, or None where there is none. Raises Overloaded: store_unavailable."""
        record = self.cached(name)
        if record is not None or self._is_absent(name):
            return record
        waiting = self._wanted.get(name)
        if waiting is None:
            waiting = self._want(name)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # Shielded: many may wait for one read; one that leaves must not end it for others.
                return await asyncio.shield(waiting)
        except TimeoutError as error:
            raise _away() from error

    def _is_absent(self, name: Name) -> bool:
        valid_until = self._absent.get(name)
        return valid_until is not None and self._clock.monotonic() < valid_until

    def _want(self, name: Name) -> asyncio.Future[Record | None]:
        if len(self._wanted) >= MAX_WANTED:
            raise _away()
        waiting: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        self._wanted[name] = waiting
        self._wake.set()
        return waiting

    async def run(self) -> None:
        """Reads wanted records, refreshes used ones. Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve())
                group.create_task(self._refresh())
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
        self, batch: list[Name], wanted: dict[Name, asyncio.Future[Record | None]]
    ) -> None:
        try:
            records = await self._read(batch)
        except STORE_ERRORS as error:
            self._complain(error)
            return  # what is left unanswered is refused by the caller
        now = self._clock.monotonic()
        for name in batch:
            record = records.get(name)
            if record is not None:
                self._entries[name].used_at = now
            if not (waiting := wanted[name]).done():
                waiting.set_result(record)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Forgets what nobody uses, reads the rest again."""
        oldest = self._clock.monotonic() - IN_USE_SECONDS
        for name in [name for name, entry in self._entries.items() if entry.used_at <= oldest]:
            del self._entries[name]
        try:
            for batch in _batches(list(self._entries)):
                await self._read(batch)
        except STORE_ERRORS as error:
            self._complain(error)

    async def _read(self, batch: list[Name]) -> Mapping[Name, Record]:
        """Reads and remembers. The second begins before the query, not with its answer."""
        started = self._clock.monotonic()
        async with asyncio.timeout(VALID_SECONDS):
            records = await self._fetch(batch)
        self._complained = False
        for name in batch:
            self._remember(name, records.get(name), started + VALID_SECONDS)
        return records

    def _remember(self, name: Name, record: Record | None, valid_until: float) -> None:
        known = self._entries.get(name)
        if known is not None and known.valid_until > valid_until:
            return  # a read that began later has answered first
        if record is None:
            self._entries.pop(name, None)
            self._absent[name] = valid_until
            self._absent.move_to_end(name)
            if len(self._absent) > MAX_ABSENT:
                self._absent.popitem(last=False)
            return
        self._absent.pop(name, None)
        used_at = known.used_at if known is not None else self._clock.monotonic()
        self._entries[name] = Entry(record, self._until(record, valid_until), used_at)

    def _until(self, _record: Record, valid_until: float) -> float:
        """For records that end sooner than their second."""
        return valid_until

    def _refuse(self, wanted: dict[Name, asyncio.Future[Record | None]]) -> None:
        for waiting in wanted.values():
            if not waiting.done():
                waiting.set_exception(_away())
                waiting.exception()  # its caller may have left: no warning about it

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "Records cannot be read",
                action=f"{self._what}_unread",
                error=type(error).__name__,
            )


def _away() -> Overloaded:
    return Overloaded("The store of keys and users is not available.", code="store_unavailable")


def _batches(names: list[Name]) -> Iterable[list[Name]]:
    return (names[at : at + BATCH] for at in range(0, len(names), BATCH))
