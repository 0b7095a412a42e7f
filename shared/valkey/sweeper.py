"""Jobs that nobody would ever end, found and ended, so that what they hold is released.

A job's state whose entry is in no lane is a bug of ours, or the work of a server that lost data. A
job that waits past its queue deadline is taken out by its API process, or by the worker that claims
it: where the one is dead and the other is not there, by us. Calls raise ValkeyAway.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from shared.job import decode_header
from shared.valkey.admission import DONE_MS
from shared.valkey.keys import WORKERS_GROUP, ShardKeys
from shared.valkey.plain import CALL_SECONDS, GroupGone, failures
from shared.valkey.scripts import ACCOUNTS, CANCEL, LIMITS, SERVER_AGE, Script

SWEEP_JOB = Script("sweep_job.v1", uses=(LIMITS, ACCOUNTS))
STRANDED_JOBS = Script("stranded_jobs.v1", uses=(SERVER_AGE,))

PAGE = 500
JOBS_PER_CALL = 100
GRACE_SECONDS = 15.0
"""Past a job's deadline: its API process, and any worker, has long had its chance."""
CLAIM_IDLE_SECONDS = 60.0
"""A claim that is as old is a dead worker's: heartbeats renew them."""


class Sweeper:
    """The jobs of all shards."""

    def __init__(self, client: Redis, shards: Sequence[ShardKeys]) -> None:
        self._client = client
        self._shards = shards

    async def sweep_orphans(self) -> list[str]:
        """Ends jobs whose entry is in no lane; their request ids."""
        swept: list[str] = []
        for keys in self._shards:
            async for page in self._job_states(keys):
                ended = await self._sweep(keys, page)
                swept += [job for job, was_ended in zip(page, ended, strict=True) if was_ended]
        return swept

    async def _sweep(self, keys: ShardKeys, page: Sequence[str]) -> list[int]:
        """Looks and removes in one step for each job; of the running ones nothing is sent here."""
        lanes = tuple(keys.lanes.values())
        with failures():
            async with asyncio.timeout(CALL_SECONDS), self._client.pipeline(False) as pipeline:
                pipeline.script_load(SWEEP_JOB.text)
                for job in page:
                    names = (keys.job(job), keys.sealed_bytes, *lanes)
                    words = (SWEEP_JOB.sha, len(names), *names, keys.account(""), job)
                    pipeline.execute_command("EVALSHA", *words)
                _sha, *ended = await pipeline.execute()
                return ended

    async def sweep_stranded(self, now: float) -> int:
        """Takes out jobs that are late, that no worker has begun and nobody waits for; how many."""
        swept = 0
        for keys in self._shards:
            for lane in keys.lanes:
                async for job in self._late(keys, lane, now):
                    swept += await self._cancel(keys, lane, job)
        return swept

    async def _late(self, keys: ShardKeys, lane: str, now: float) -> AsyncIterator[str]:
        """Request ids of those past their deadline whose API process is gone."""
        async for _entry, request_id, raw in self._unclaimed(keys, keys.lanes[lane], now):
            try:
                header = decode_header(raw)
            except msgspec.DecodeError:
                continue  # a worker buries it
            is_late = now > header.admitted_at + header.queue_seconds + GRACE_SECONDS
            if is_late and not await self._ask("EXISTS", keys.inbox_lease(header.reply_to)):
                yield request_id.decode()

    async def _unclaimed(
        self, keys: ShardKeys, lane: bytes, now: float
    ) -> AsyncIterator[tuple[bytes, bytes, bytes]]:
        """Jobs that no worker was given yet, then those of workers that are gone."""
        try:
            groups = await self._ask("XINFO GROUPS", lane)
        except GroupGone:
            return
        given = [one["last-delivered-id"] for one in groups if one["name"] == WORKERS_GROUP]
        after = given[0] if given else b"0-0"
        newest = b"%d" % int((now - GRACE_SECONDS) * 1000)
        while page := await self._jobs(keys, lane, b"(" + after, newest, JOBS_PER_CALL):
            for job in page:
                yield job
            after = page[-1][0]
        idle = int(CLAIM_IDLE_SECONDS * 1000)
        start = b"-"
        while given:
            claims = await self._ask(
                *("XPENDING", lane, WORKERS_GROUP, "IDLE", idle, start, "+", JOBS_PER_CALL),
                parse_detail=True,
            )
            for claim in claims:
                entry = claim["message_id"]
                for job in await self._jobs(keys, lane, entry, entry, 1):
                    yield job
            if len(claims) < JOBS_PER_CALL:
                return
            start = b"(" + claims[-1]["message_id"]

    async def _jobs(
        self, keys: ShardKeys, lane: bytes, first: bytes, last: bytes, count: int
    ) -> list[tuple[bytes, bytes, bytes]]:
        found = await self._ask(
            *("EVAL", STRANDED_JOBS.text, 2, lane, keys.boot),
            *(first, last, count, int(GRACE_SECONDS)),
        )
        return [(entry, request_id, header) for entry, request_id, header in found]

    async def _cancel(self, keys: ShardKeys, lane: str, request_id: str) -> bool:
        names = (keys.job(request_id), keys.done, keys.lanes[lane], keys.sealed_bytes)
        outcome = await self._ask(
            *("EVAL", CANCEL.text, len(names), *names),
            *(request_id, DONE_MS, keys.control(""), "waiting", keys.account("")),
        )
        return bool(outcome == b"removed")

    async def _job_states(self, keys: ShardKeys) -> AsyncIterator[list[str]]:
        """Request ids, a page at a time."""
        prefix, cursor = keys.job(""), 0
        while True:
            cursor, page = await self._ask(
                "SCAN", cursor, "MATCH", prefix + b"*", "COUNT", PAGE, "TYPE", "hash"
            )
            yield [key[len(prefix) :].decode() for key in page]
            if not int(cursor):
                return

    async def _ask(self, *words: bytes | str | int, **options: bool) -> Any:
        with failures():
            async with asyncio.timeout(CALL_SECONDS):
                execute: Callable[..., Awaitable[Any]] = self._client.execute_command
                return await execute(*words, **options)
