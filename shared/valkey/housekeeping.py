"""What is left over in Valkey, found and taken away: inboxes, uploads, jobs, streams, consumers, notes.

Everything here may run at any time, twice, and beside the work itself. Whatever removes something
looks and removes in one script, so that what comes back to life in between is left alone. All calls
raise ValkeyAway when Valkey cannot be asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from shared.valkey.keys import BACKGROUND_GROUP, METERING_GROUP, WORKERS_GROUP, ShardKeys
from shared.valkey.plain import CALL_SECONDS, GroupGone, failures, plain_client
from shared.valkey.processes import FORGET_SECONDS, decode_entry
from shared.valkey.scripts import SERVER_AGE, UPLOADS, Script
from shared.valkey.spend import FORGET_CONSUMER
from shared.valkey.sweeper import Sweeper

SWEEP_INBOX = Script("sweep_inbox.v1", uses=(SERVER_AGE,))
SWEEP_UPLOAD = Script("sweep_upload.v1", uses=(UPLOADS,))
TRIM_ACKED = Script("trim_acked.v1")

INBOX_GRACE_SECONDS = 60
"""After a restart of the server: far above any lease, and nothing waits for the removal."""
UPLOAD_QUIET_SECONDS = 600
"""An upload may wait this long for its job to be admitted."""
CONSUMER_IDLE_SECONDS = 3600
KEPT_ENTRIES = 10_000
"""Of the buried jobs: enough to see what went wrong, bounded memory."""


class Buried(msgspec.Struct, frozen=True):
    """What the stream of buried jobs says."""

    count: int
    newest: str
    reason: str


class Housekeeper:
    """The leftovers of all shards."""

    def __init__(self, client: Redis, shards: Sequence[ShardKeys]) -> None:
        self._client = client
        self._shards = shards
        self._sweeper = Sweeper(client, shards)

    @classmethod
    def connect(cls, url: str, shards: Sequence[ShardKeys], process: str) -> "Housekeeper":
        return cls(plain_client(url, name=f"gateway-background-{process}"), shards)

    async def close(self) -> None:
        await self._client.aclose()

    async def sweep_inboxes(self) -> int:
        """Removes inboxes of API processes that are gone; how many."""
        swept = 0
        for keys in self._shards:
            for member in await self._members(keys.inboxes):
                process = member.decode()
                names = (
                    keys.inbox_lease(process),
                    keys.inbox(process),
                    keys.inboxes,
                    keys.boot,
                )
                swept += await self._run(SWEEP_INBOX, names, process, INBOX_GRACE_SECONDS)
        return swept

    async def sweep_uploads(self, quiet_seconds: float = UPLOAD_QUIET_SECONDS) -> int:
        """Removes quiet uploads whose job is gone; how many."""
        swept = 0
        for keys in self._shards:
            for field in await self._ask("HKEYS", keys.uploads):
                request_id = field.decode()
                names = (
                    keys.job(request_id),
                    keys.upload(request_id),
                    keys.uploads,
                    keys.sealed_bytes,
                )
                swept += await self._run(SWEEP_UPLOAD, names, request_id, int(quiet_seconds * 1000))
        return swept

    async def trim_kept(self, most: int = KEPT_ENTRIES) -> int:
        """Drops the oldest buried jobs beyond a bound; how many.

        The quarantine is not among them: its rows are money, an operator takes them out.
        """
        dropped = 0
        for keys in self._shards:
            dropped += int(await self._ask("XTRIM", keys.buried, "MAXLEN", "=", most))
        return dropped

    async def forget_processes(self, now: float) -> int:
        """Takes processes off the register that have long been silent; how many."""
        forgotten = 0
        keys = self._shards[0]
        for process, value in (await self._ask("HGETALL", keys.processes)).items():
            if _is_forgotten(value, now):
                forgotten += int(await self._ask("HDEL", keys.processes, process))
        return forgotten

    async def trim_acked(self) -> int:
        """Drops spend entries that were acknowledged but not deleted; how many."""
        return sum(
            [await self._run(TRIM_ACKED, (keys.spend, keys.spend_rows)) for keys in self._shards]
        )

    async def forget_consumers(self, idle_seconds: float = CONSUMER_IDLE_SECONDS) -> int:
        """Takes silent consumers that hold nothing off the groups; how many."""
        forgotten = 0
        for keys in self._shards:
            groups = [(keys.spend, METERING_GROUP), (keys.events, BACKGROUND_GROUP)]
            groups += [(keys.receipts, BACKGROUND_GROUP)]
            groups += [(lane, WORKERS_GROUP) for lane in keys.lanes.values()]
            for stream, group in groups:
                for consumer in await self._consumers(stream, group):
                    forgotten += await self._run(
                        FORGET_CONSUMER, (stream,), group, consumer, int(idle_seconds * 1000)
                    )
        return forgotten

    async def buried(self) -> Buried | None:
        """How many jobs were given up, and why the newest was; None if none was."""
        counts, newest = 0, None
        for keys in self._shards:
            counts += int(await self._ask("XLEN", keys.buried))
            for entry, fields in await self._ask("XREVRANGE", keys.buried, "+", "-", "COUNT", 1):
                if newest is None or entry > newest[0]:
                    newest = (entry, fields.get(b"reason", b""))
        if newest is None:
            return None
        return Buried(counts, newest[0].decode(), newest[1].decode(errors="replace"))

    async def sweep_orphans(self) -> list[str]:
        """Ends jobs whose entry is in no lane; their request ids."""
        return await self._sweeper.sweep_orphans()

    async def sweep_stranded(self, now: float) -> int:
        """Takes out late jobs that nobody has begun and nobody waits for; how many."""
        return await self._sweeper.sweep_stranded(now)

    async def _members(self, name: bytes) -> list[bytes]:
        return list(await self._ask("SMEMBERS", name))

    async def _consumers(self, stream: bytes, group: bytes) -> list[bytes]:
        try:
            return [
                consumer["name"] for consumer in await self._ask("XINFO CONSUMERS", stream, group)
            ]
        except GroupGone:
            return []

    async def _run(self, script: Script, keys: Sequence[bytes], *args: bytes | str | int) -> int:
        return int(await self._ask("EVAL", script.text, len(keys), *keys, *args))

    async def _ask(self, *words: bytes | str | int) -> Any:
        with failures():
            async with asyncio.timeout(CALL_SECONDS):
                execute: Callable[..., Awaitable[Any]] = self._client.execute_command
                return await execute(*words)


def _is_forgotten(entry: bytes, now: float) -> bool:
    """An entry nobody can read any more counts as forgotten too."""
    try:
        return now - decode_entry(entry).seen_at > FORGET_SECONDS
    except msgspec.DecodeError:
        return True
