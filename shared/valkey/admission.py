"""Admission: one call that lets a job in, all or nothing; and its opposite, cancelling."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.document import QueueLimits
from shared.errors import Overloaded
from shared.job import JobHeader, encode_header
from shared.valkey.client import Client, Word
from shared.valkey.gather import Gatherer
from shared.valkey.keys import ShardKeys
from shared.valkey.scripts import ADMIT, CANCEL, NOTIFY, PROBE
from shared.valkey.terms import Standing, Terms, pack_terms, raise_refusal, read_standing

ADMITTED_LENGTH = 2
"""Of the script's answer for a job with terms; a refusal is longer."""
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
    b"receipt_backlog": Overloaded(
        "Receipts are waiting to be made; try again shortly.", code="store_unavailable"
    ),
}


class _Asked(NamedTuple):
    header: JobHeader
    sealed_body: bytes
    limits: QueueLimits
    terms: Terms | None


class Admitted(NamedTuple):
    """A job that was let in, or had been before."""

    outcome: str
    """`admitted` or, when asked again, `duplicate`."""
    standing: Standing | None = None
    """Of its accounts, where it has some."""


ADMITTED, DUPLICATE = Admitted("admitted"), Admitted("duplicate")


class Admission:
    """Talks to one shard."""

    def __init__(self, keys: ShardKeys) -> None:
        self.keys = keys
        self._gatherer: Gatherer[_Asked] = Gatherer(
            self._send, weigh=lambda asked: len(asked.sealed_body)
        )

    async def admit(
        self,
        client: Client,
        header: JobHeader,
        sealed_body: bytes,
        limits: QueueLimits,
        terms: Terms | None = None,
    ) -> Admitted:
        """Raises Overloaded, ValkeyAway, and with `terms` what they refuse: see `raise_refusal`.

        May be repeated with the same request id: a job is never let in twice.
        """
        asked = _Asked(header, sealed_body, limits, terms)
        answer: Any = await self._gatherer.ask(client, asked)
        if type(answer) is list:
            assert terms is not None  # noqa: S101 - a list is the answer to terms alone
            if len(answer) != ADMITTED_LENGTH:
                raise_refusal(terms, answer)
            return Admitted("admitted", read_standing(answer[1]))
        refusal = REFUSALS.get(answer)
        if refusal is not None:
            raise Overloaded(refusal.message, code=refusal.code)
        return DUPLICATE if answer == b"duplicate" else ADMITTED

    def _send(self, client: Client, asked: Sequence["_Asked"]) -> asyncio.Future[Any]:
        """All of one loop turn are judged by the same limits: those of the last one asked."""
        limits, own = asked[-1].limits, self.keys
        keys = [own.spend_rows, own.sealed_bytes, own.done, own.events, own.receipts]
        args: list[Word] = [
            limits.lane_capacity, limits.max_sealed_bytes, limits.admit_below_backlog,
            limits.max_receipt_backlog, own.account(""), own.window(""),
        ]  # fmt: skip
        for one in asked:
            header, terms = one.header, one.terms
            keys += (own.lanes[header.lane], own.job(header.request_id))
            packed = b"" if terms is None else pack_terms(terms)
            args += (header.request_id, encode_header(header), one.sealed_body, packed)
        return client.script(ADMIT, keys, args)

    async def probe(self, client: Client, request_id: str, terms: Terms) -> None:
        """Counts a request that is refused for another reason. Raises RateLimited, ValkeyAway."""
        words = (self.keys.window(""), request_id, pack_terms(terms))
        refusal = await client.script(PROBE, (self.keys.events,), words)
        if refusal:
            raise_refusal(terms, refusal)

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
                keys.account(""),
            ),
        )
        return answer.decode()

    async def notify(self, client: Client, request_id: str, word: str) -> None:
        """Tells the job's worker to `pause` or `resume` reading from the provider."""
        await client.script(
            NOTIFY, (self.keys.job(request_id),), (request_id, self.keys.control(""), word)
        )
