"""The streams of transcripts, as the background process reads them: claimed, renewed, ended.

An entry has one or more fields, all named `t`: the Transcripts of the jobs that one call of the
settling script ended. What was claimed and not ended stays pending under its consumer's name, and
is taken over once nobody has renewed it for a while.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import structlog

from shared.transcript import Transcript, decode_transcript
from shared.valkey.client import Client, CommandRefused
from shared.valkey.keys import BACKGROUND_GROUP, ShardKeys
from shared.valkey.scripts import Script
from shared.valkey.spend import FORGET_CONSUMER, QUARANTINE

CHUNK = 1000
"""Entries per command: 1,000 keep the server for about a millisecond."""

RENEW_CLAIMS = Script("renew_claims.v1")

log = structlog.get_logger()
Place = tuple[int, bytes]


class Claimed(msgspec.Struct, frozen=True):
    """A transcript this process holds."""

    shard: int
    entry: bytes
    index: int
    """Its place in the entry."""
    transcript: Transcript


class ReceiptStream:
    """Of all shards, for one consumer. Every call raises ValkeyAway or CommandRefused, and may be
    repeated; calls of one stream do not overlap."""

    def __init__(self, client: Client, shards: Sequence[ShardKeys], consumer: str) -> None:
        self._client = client
        self._shards = {keys.shard: keys for keys in shards}
        self._consumer = consumer.encode()
        self._cursors: dict[int, bytes] = {}
        self._open: dict[Place, set[int]] = {}
        """Which transcripts of an entry are still to be ended."""

    async def ensure_groups(self) -> None:
        """At the beginning of each stream, so that no earlier transcript is missed."""
        for keys in self._shards.values():
            try:
                await self._client.call(
                    b"XGROUP", b"CREATE", keys.receipts, BACKGROUND_GROUP, b"0", b"MKSTREAM"
                )
            except CommandRefused as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def claim(self, room: int) -> list[Claimed]:
        """All transcripts of at most `room` new entries of each shard; does not wait."""
        found: list[Claimed] = []
        for keys in self._shards.values():
            answer = await self._client.call(
                *(b"XREADGROUP", b"GROUP", BACKGROUND_GROUP, self._consumer, b"COUNT", room),
                *(b"STREAMS", keys.receipts, b">"),
            )
            found += await self._read(keys, answer[0][1] if answer else [])
        return found

    async def take_over(self, idle_seconds: float, room: int) -> list[Claimed]:
        """What nobody, this process included, has renewed for that long: all transcripts of at most
        `room` entries of each shard. Looks a part of the stream over at each call.

        Idle time runs on while the server is down: nobody is judged by it until it is up as long.
        """
        if await self._uptime() <= idle_seconds + 1:
            return []
        found: list[Claimed] = []
        for keys in self._shards.values():
            cursor, entries, _deleted = await self._client.call(
                *(b"XAUTOCLAIM", keys.receipts, BACKGROUND_GROUP, self._consumer),
                *(int(idle_seconds * 1000), self._cursors.get(keys.shard, b"0-0")),
                *(b"COUNT", room),
            )
            self._cursors[keys.shard] = cursor
            found += await self._read(keys, entries)
        return found

    async def renew(self, claimed: Iterable[Claimed]) -> set[Place]:
        """Keeps entries from being taken over; those that were taken, by shard and id."""
        lost: set[Place] = set()
        for shard, entries in _by_shard(claimed).items():
            for at in range(0, len(entries), CHUNK):
                taken = await self._client.call(
                    *(b"EVAL", RENEW_CLAIMS.text, 1, self._shards[shard].receipts),
                    *(BACKGROUND_GROUP, self._consumer, *entries[at : at + CHUNK]),
                )
                lost.update((shard, entry) for entry in taken)
        for place in lost:
            self._open.pop(place, None)
        return lost

    async def end(self, claimed: Iterable[Claimed]) -> None:
        """They were dealt with. An entry goes with the last of its transcripts."""
        by_shard: dict[int, list[bytes]] = defaultdict(list)
        for one in claimed:
            if self._was_last(one.shard, one.entry, one.index):
                by_shard[one.shard].append(one.entry)
        for shard, entries in by_shard.items():
            distinct = list(dict.fromkeys(entries))
            for at in range(0, len(distinct), CHUNK):
                await self._end(self._shards[shard], distinct[at : at + CHUNK])

    async def backlog(self) -> dict[int, int]:
        """Entries that wait or are under way, by shard."""
        return {
            shard: int(await self._client.call(b"XLEN", keys.receipts))
            for shard, keys in self._shards.items()
        }

    async def leave(self) -> None:
        """Takes this consumer's name off the groups, where it holds nothing any more."""
        for keys in self._shards.values():
            await self._client.call(
                *(b"EVAL", FORGET_CONSUMER.text, 1, keys.receipts),
                *(BACKGROUND_GROUP, self._consumer, 0),
            )

    async def _read(self, keys: ShardKeys, entries: Sequence[Any]) -> list[Claimed]:
        found: list[Claimed] = []
        for entry, fields in entries:
            # One that is read again is whole again: what was dealt with of it is folded by its id.
            self._open[keys.shard, entry] = set(range(len(fields) // 2))
            for index, raw in enumerate(fields[1::2]):
                try:
                    transcript = decode_transcript(raw)
                except (msgspec.DecodeError, ValueError) as error:
                    # msgspec names the place and the types, never the value.
                    await self._set_aside(keys, entry, index, raw, str(error))
                else:
                    found.append(Claimed(keys.shard, entry, index, transcript))
        return found

    async def _set_aside(
        self, keys: ShardKeys, entry: bytes, index: int, raw: bytes, reason: str
    ) -> None:
        """Kept before it is ended: repeated, it may stand there twice, rather that than not at all."""
        log.error("A transcript cannot be read", action="transcript_bad", error=reason)
        await self._client.call(
            *(b"EVAL", QUARANTINE.text, 1, keys.receipts_quarantine),
            *(entry, raw, reason),
        )
        if self._was_last(keys.shard, entry, index):
            await self._end(keys, [entry])

    def _was_last(self, shard: int, entry: bytes, index: int) -> bool:
        """Counts a transcript off; whether none of its entry is left. One that was lost to another
        process is not ours to end: not all of its transcripts may have been dealt with."""
        left = self._open.get((shard, entry))
        if left is None:
            return False
        left.discard(index)
        return not left

    async def _end(self, keys: ShardKeys, entries: Sequence[bytes]) -> None:
        # Deleted first: between the two, a taker finds nothing, and not an entry nobody will delete.
        deleted = self._client.call(b"XDEL", keys.receipts, *entries)
        ended = self._client.call(b"XACK", keys.receipts, BACKGROUND_GROUP, *entries)
        await deleted
        await ended
        for entry in entries:  # not before: whoever repeats a call that failed must find it
            self._open.pop((keys.shard, entry), None)

    async def _uptime(self) -> float:
        info: bytes = await self._client.call(b"INFO", b"server")
        _, _, after = info.partition(b"uptime_in_seconds:")
        return float(after.split(b"\r\n", 1)[0])


def _by_shard(claimed: Iterable[Claimed]) -> dict[int, list[bytes]]:
    """Each entry once."""
    entries: dict[int, dict[bytes, None]] = defaultdict(dict)
    for one in claimed:
        entries[one.shard][one.entry] = None
    return {shard: list(found) for shard, found in entries.items()}
