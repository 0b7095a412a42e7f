"""The spend streams, as a metering process reads them: claim, acknowledge, set aside, take over.

An entry has one or more fields, all named `r`: SpendRows in MessagePack, written by the scripts that
end attempts; `spend-rows` counts them. A claimed entry stays pending under its consumer's name until it is acknowledged, so whoever dies
loses nothing: others take it over after a lease.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from shared.spend import SpendRow, decode_row, encode_row
from shared.valkey.client import CommandRefused
from shared.valkey.keys import METERING_GROUP, ShardKeys
from shared.valkey.plain import CALL_SECONDS, failures, plain_client
from shared.valkey.scripts import Script

CHUNK = 1000
"""Entries per command: 1,000 keep the server for about a millisecond, 10,000 would be felt as a
pause by every stream of every client."""

ENTRIES_PER_READ = 250
"""An entry may hold the rows of a hundred jobs: so one read stays below 25,000 rows."""

ACK = Script("ack.v1")
QUARANTINE = Script("quarantine.v1")
FORGET_CONSUMER = Script("forget_consumer.v1")


class Undecodable(msgspec.Struct, frozen=True):
    """What stood where a row should have been."""

    reason: str
    raw: bytes


class Claim(msgspec.Struct, frozen=True):
    """One row of an entry that this process holds."""

    shard: int
    entry: bytes
    row: SpendRow | Undecodable
    position: int = 0
    rows: int = 1
    """How many its entry has, and which of them this is."""


class SpendStream:
    """The spend streams of all shards, for one consumer.

    Every call raises ValkeyAway when it could not be carried out, or its answer was lost; each may
    be repeated. Calls of one stream do not overlap.
    """

    def __init__(self, client: Redis, shards: Sequence[ShardKeys], consumer: str) -> None:
        """Takes the client over: answers to its stream commands stay as the server sent them."""
        self._client = client
        self._shards = {keys.shard: keys for keys in shards}
        self._by_key = {keys.spend: keys.shard for keys in shards}
        self._consumer = consumer
        self._cursors: dict[int, bytes] = {}
        self._left: dict[tuple[int, bytes], int] = {}
        """Of entries that are dealt with in part: how many rows are still to come."""
        # Without redis-py's callback a thousand entries are not turned into a thousand dicts.
        client.set_response_callback("XREADGROUP", _as_sent)
        client.set_response_callback("XAUTOCLAIM", _as_sent)

    @classmethod
    def connect(cls, url: str, shards: Sequence[ShardKeys], consumer: str) -> "SpendStream":
        return cls(plain_client(url, name=f"gateway-metering-{consumer}"), shards, consumer)

    async def close(self) -> None:
        await self._client.aclose()

    async def ensure_group(self) -> None:
        """Makes the group at the beginning of each stream, so that no earlier row is missed."""
        for keys in self._shards.values():
            try:
                await self._ask("XGROUP", "CREATE", keys.spend, METERING_GROUP, "0", "MKSTREAM")
            except CommandRefused as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def claim(self, count: int, block_seconds: float = 0) -> list[Claim]:
        """All rows of at most `count` new entries; waits up to `block_seconds` for the first."""
        if block_seconds and len(self._shards) == 1:
            return await self._read(next(iter(self._shards.values())), count, block_seconds)
        claims: list[Claim] = []
        for keys in self._shards.values():
            if len(claims) < count:
                claims += await self._read(keys, count - len(claims))
        if block_seconds and not claims:
            # A blocking read cannot span the slots of a cluster: several shards are polled.
            await asyncio.sleep(block_seconds)
        return claims

    async def own(self) -> list[Claim]:
        """What this consumer was given and has not acknowledged: for after a lost connection."""
        self._left.clear()  # all rows of these entries are read again
        claims: list[Claim] = []
        for keys in self._shards.values():
            after = b"0"
            while page := await self._entries(keys, CHUNK, after):
                claims += await self._claims(keys, page)
                after = page[-1][0]
        return claims

    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Claim]:
        """Rows of entries that another consumer has held in silence for so long, now ours."""
        if await self._uptime() <= min_idle_seconds + 1:
            return []  # idle time ran on while the server was down: nobody is judged by it
        claims: list[Claim] = []
        for keys in self._shards.values():
            if len(claims) < count:
                idle_ms = int(min_idle_seconds * 1000)
                room = min(count - len(claims), ENTRIES_PER_READ)
                claims += await self._claims(keys, await self._taken_over(keys, idle_ms, room))
        return claims

    async def ack(self, claims: Iterable[Claim]) -> None:
        """Ends rows: an entry goes with its last one, acknowledged and deleted in one step."""
        entries: dict[int, list[bytes | int]] = defaultdict(list)
        for claim in claims:
            if self._was_last(claim):
                entries[claim.shard] += (claim.entry, claim.rows)
        for shard, words in entries.items():
            for at in range(0, len(words), 2 * CHUNK):
                await self._end(self._shards[shard], words[at : at + 2 * CHUNK])

    def _was_last(self, claim: Claim) -> bool:
        """Counts one row of an entry off; whether no other is left."""
        entry = (claim.shard, claim.entry)
        left = self._left.pop(entry, claim.rows) - 1
        if left > 0:
            self._left[entry] = left
        return left <= 0

    async def quarantine(self, claim: Claim, reason: str) -> None:
        """Sets a row aside with the reason, and only then ends it.

        Repeated, it may stand there twice: rather that than not at all.
        """
        row, keys = claim.row, self._shards[claim.shard]
        raw = row.raw if isinstance(row, Undecodable) else encode_row(row)
        await self._ask(
            *("EVAL", QUARANTINE.text, 1, keys.spend_quarantine),
            *(claim.entry, raw, reason),
        )
        await self.ack([claim])

    async def backlog(self) -> dict[int, int]:
        """Rows waiting or being inserted, by shard."""
        return {
            shard: int(await self._ask("GET", keys.spend_rows) or 0)
            for shard, keys in self._shards.items()
        }

    async def leave(self) -> None:
        """Takes this consumer's name off the groups, where it holds nothing any more."""
        for keys in self._shards.values():
            await self._ask(
                "EVAL", FORGET_CONSUMER.text, 1, keys.spend, METERING_GROUP, self._consumer, 0
            )

    async def _read(self, keys: ShardKeys, count: int, block_seconds: float = 0) -> list[Claim]:
        return await self._claims(
            keys, await self._entries(keys, min(count, ENTRIES_PER_READ), b">", block_seconds)
        )

    async def _entries(
        self, keys: ShardKeys, count: int, after: bytes, block_seconds: float = 0
    ) -> list[Any]:
        block = ("BLOCK", int(block_seconds * 1000)) if block_seconds else ()
        answer = await self._ask(
            *("XREADGROUP", "GROUP", METERING_GROUP, self._consumer, "COUNT", count, *block),
            *("STREAMS", keys.spend, after),
            seconds=CALL_SECONDS + block_seconds,
        )
        return list(answer[0][1]) if answer else []

    async def _taken_over(self, keys: ShardKeys, idle_ms: int, count: int) -> list[Any]:
        cursor, entries, _deleted = await self._ask(
            *("XAUTOCLAIM", keys.spend, METERING_GROUP, self._consumer, idle_ms),
            *(self._cursors.get(keys.shard, b"0-0"), "COUNT", count),
        )
        self._cursors[keys.shard] = cursor
        return list(entries)

    async def _claims(self, keys: ShardKeys, entries: Sequence[Any]) -> list[Claim]:
        gone = [entry for entry, fields in entries if fields is None]
        if gone:  # deleted while pending: there is no row to lose, only a note to take away
            await self._end(keys, [word for entry in gone for word in (entry, 0)])
        shard = keys.shard
        claims: list[Claim] = []
        for entry, fields in entries:
            if fields is not None:
                rows = _rows(fields)
                claims += [Claim(shard, entry, row, n, len(rows)) for n, row in enumerate(rows)]
        return claims

    async def _end(self, keys: ShardKeys, entries: Sequence[bytes | int]) -> None:
        """Takes pairs of an entry and how many rows it has."""
        await self._ask(
            *("EVAL", ACK.text, 2, keys.spend, keys.spend_rows, METERING_GROUP, *entries)
        )

    async def _uptime(self) -> float:
        info = await self._ask("INFO", "server")
        return float(info["uptime_in_seconds"])

    async def _ask(self, *words: bytes | str | int, seconds: float = CALL_SECONDS) -> Any:
        with failures():
            async with asyncio.timeout(seconds):
                execute: Callable[..., Awaitable[Any]] = self._client.execute_command
                return await execute(*words)


def _rows(fields: Sequence[bytes]) -> list[SpendRow | Undecodable]:
    if any(name != b"r" for name in fields[::2]):
        return [Undecodable("the entry has other fields than `r`", b" ".join(fields))]
    return [_row(raw) for raw in fields[1::2]]


def _row(raw: bytes) -> SpendRow | Undecodable:
    try:
        return decode_row(raw)
    except (msgspec.DecodeError, ValueError) as error:
        # msgspec names the place and the types, never the value.
        return Undecodable(str(error), raw)


def _as_sent(response: Any, **_options: Any) -> Any:
    return response
