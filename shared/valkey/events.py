"""The streams of budget events, as the background process reads them: claimed, dealt with, deleted.

The script that resets a window, or first passes a soft limit, adds the event in the same step. What
was claimed and not ended stays pending, and is taken over after a while by whoever looks.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import structlog

from shared.account import owner_of
from shared.valkey.client import Client, CommandRefused
from shared.valkey.keys import BACKGROUND_GROUP, ShardKeys

Kind = Literal["budget_reset", "budget_soft_limit"]
ID_DIGITS = 32

log = structlog.get_logger()


class BudgetEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts in nano-dollars, times in epoch milliseconds. As text it is what the scripts write."""

    kind: Kind
    account: str
    """Its suffix."""
    budget: str
    spend: int
    """At a reset: of the window that ended."""
    at: int = 0
    """When the new window began."""
    next: int = 0
    """When it ends; 0: never."""
    soft: int = -1
    max: int = -1
    """-1: none."""


class Claimed(msgspec.Struct, frozen=True):
    """An event this process holds."""

    shard: int
    entry: bytes
    event: BudgetEvent

    @property
    def happened_ms(self) -> int:
        return int(self.entry.partition(b"-")[0])

    @property
    def stable_id(self) -> str:
        """The same for whoever tells of it, however often. A reset is the same at the same time."""
        event = self.event
        when = str(event.at) if event.kind == "budget_reset" else self.entry.decode()
        name = "\0".join((event.kind, event.account, event.budget, when))
        return "evt_" + hashlib.sha256(name.encode()).hexdigest()[:ID_DIGITS]


class EventStream:
    """Of all shards, for one consumer. Every call raises ValkeyAway or CommandRefused."""

    def __init__(self, client: Client, shards: Sequence[ShardKeys], consumer: str) -> None:
        self._client = client
        self._shards = {keys.shard: keys for keys in shards}
        self._consumer = consumer.encode()

    async def ensure_groups(self) -> None:
        """At the beginning of each stream, so that no earlier event is missed."""
        for keys in self._shards.values():
            try:
                await self._client.call(
                    b"XGROUP", b"CREATE", keys.events, BACKGROUND_GROUP, b"0", b"MKSTREAM"
                )
            except CommandRefused as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def claim(self, count: int) -> list[Claimed]:
        """New events, at most so many of each shard; does not wait."""
        found: list[Claimed] = []
        for keys in self._shards.values():
            answer = await self._client.call(
                *(b"XREADGROUP", b"GROUP", BACKGROUND_GROUP, self._consumer, b"COUNT", count),
                *(b"STREAMS", keys.events, b">"),
            )
            found += await self._read(keys, answer[0][1] if answer else [])
        return found

    async def take_over(self, idle_seconds: float, count: int) -> list[Claimed]:
        """What somebody, this process too, claimed that long ago and has not ended."""
        found: list[Claimed] = []
        for keys in self._shards.values():
            _cursor, entries, _deleted = await self._client.call(
                *(b"XAUTOCLAIM", keys.events, BACKGROUND_GROUP, self._consumer),
                *(int(idle_seconds * 1000), b"0-0", b"COUNT", count),
            )
            found += await self._read(keys, entries)
        return found

    async def end(self, claimed: Claimed) -> None:
        """It was dealt with."""
        await self._end(self._shards[claimed.shard], claimed.entry)

    async def _read(self, keys: ShardKeys, entries: Sequence[Any]) -> list[Claimed]:
        found: list[Claimed] = []
        for entry, fields in entries:
            try:
                found.append(Claimed(keys.shard, entry, _event(fields)))
            except (msgspec.ValidationError, ValueError) as error:
                log.error("A budget event cannot be read", action="event_bad", error=str(error))
                await self._end(keys, entry)
        return found

    async def _end(self, keys: ShardKeys, entry: bytes) -> None:
        # Deleted first: between the two, a taker finds nothing, and not an entry nobody will delete.
        deleted = self._client.call(b"XDEL", keys.events, entry)
        ended = self._client.call(b"XACK", keys.events, BACKGROUND_GROUP, entry)
        await deleted
        await ended


def _event(fields: Sequence[bytes]) -> BudgetEvent:
    """Raises ValidationError and ValueError."""
    texts = [field.decode() for field in fields]
    named = dict(zip(texts[::2], texts[1::2], strict=True))
    event = msgspec.convert(named, BudgetEvent, strict=False)
    owner_of(event.account)
    return event
