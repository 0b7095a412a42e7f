"""Admission: one call that lets a job in, all or nothing; and its opposite, cancelling."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.catalog import QueueLimits
from shared.errors import Overloaded
from shared.job import JobHeader, encode_header
from shared.valkey.client import Client, Word
from shared.valkey.gather import Gatherer
from shared.valkey.keys import ShardKeys
from shared.valkey.scripts import ADMIT, CANCEL, NOTIFY

DONE_MS = 60_000
"""How long an ended job is remembered: far longer than a lost admission may be asked again."""

REFUSALS = {
    b"queue_full": Overloaded("The queue is full; try again shortly.", code="queue_full"),
    b"memory_full": Overloaded(
        "The queue holds too much data; try again shortly.", code="queue_full"
    ),
    b"spend_backlog": Overloaded(
        "Usage records are waiting to be stored; try again shortly.", code="store_unavailable"
    ),
}


class _Asked(NamedTuple):
    header: JobHeader
    sealed_body: bytes
    limits: QueueLimits


class Admission:
    """Talks to one shard."""

    def __init__(self, keys: ShardKeys) -> None:
        self.keys = keys
        self._gatherer: Gatherer[_Asked] = Gatherer(
            self._send, weigh=lambda asked: len(asked.sealed_body)
        )

    async def admit(
        self, client: Client, header: JobHeader, sealed_body: bytes, limits: QueueLimits
    ) -> str:
        """`admitted` or, when asked again, `duplicate`. Raises Overloaded, or ValkeyAway.

        May be repeated with the same request id: a job is never let in twice.
        """
        answer: bytes = await self._gatherer.ask(client, _Asked(header, sealed_body, limits))
        refusal = REFUSALS.get(answer)
        if refusal is not None:
            raise Overloaded(refusal.message, code=refusal.code)
        return "duplicate" if answer == b"duplicate" else "admitted"

    def _send(self, client: Client, asked: Sequence["_Asked"]) -> asyncio.Future[Any]:
        """All of one loop turn are judged by the same limits: those of the last one asked."""
        limits, own = asked[-1].limits, self.keys
        keys = [own.spend_rows, own.sealed_bytes, own.done]
        args: list[Word] = [
            limits.lane_capacity, limits.max_sealed_bytes, limits.admit_below_backlog,
        ]  # fmt: skip
        for one in asked:
            request_id = one.header.request_id
            keys += (own.lanes[one.header.lane], own.job(request_id))
            args += (request_id, encode_header(one.header), one.sealed_body)
        return client.script(ADMIT, keys, args)

    async def cancel(
        self, client: Client, request_id: str, lane: str, *, only_waiting: bool = False
    ) -> str:
        """`removed` (it cost nothing), `told` (its worker is stopping it) or `ended`.

        With `only_waiting` a job that a worker has begun is `running`, and goes on.
        """
        keys = self.keys
        answer: bytes = await client.script(
            CANCEL,
            (keys.job(request_id), keys.done, keys.lanes[lane], keys.sealed_bytes),
            (
                request_id,
                DONE_MS,
                keys.control(""),
                "waiting" if only_waiting else "",
            ),
        )
        return answer.decode()

    async def notify(self, client: Client, request_id: str, word: str) -> None:
        """Tells the job's worker to `pause` or `resume` reading from the provider."""
        await client.script(
            NOTIFY, (self.keys.job(request_id),), (request_id, self.keys.control(""), word)
        )
