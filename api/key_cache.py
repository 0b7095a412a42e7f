"""Key records in this process, valid for a second each; and which of them were used."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from typing_extensions import override

from api.record_cache import IN_USE_SECONDS, VALID_SECONDS, RecordCache
from shared.clock import Clock
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.keys import KeyRecord

MARK_SECONDS = 60.0
"""How often the keys that were used are handed to `mark_used`."""


class KeyReader(Protocol):
    """Raises one of STORE_ERRORS."""

    async def fetch_many(self, public_ids: Sequence[str]) -> dict[str, KeyRecord]: ...

    async def mark_used(self, public_ids: Iterable[str]) -> None: ...


class KeyCache(RecordCache[bytes, KeyRecord]):
    """By public id, as it stands in a header."""

    def __init__(self, reader: KeyReader, clock: Clock) -> None:
        super().__init__(self._fetch_keys, clock, what="keys")
        self._reader = reader
        self._used: set[str] = set()

    async def _fetch_keys(self, public_ids: Sequence[bytes]) -> Mapping[bytes, KeyRecord]:
        found = await self._reader.fetch_many([name.decode() for name in public_ids])
        return {name.encode(): record for name, record in found.items()}

    @override
    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super().run())
            group.create_task(self._mark())

    @override
    async def refresh(self) -> None:
        oldest = self._clock.monotonic() - IN_USE_SECONDS
        self._used.update(
            entry.record.public_id for entry in self._entries.values() if entry.used_at > oldest
        )
        await super().refresh()

    @override
    def _until(self, record: KeyRecord, valid_until: float) -> float:
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
