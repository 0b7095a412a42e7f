"""Moves spend rows from their streams into ClickHouse, a batch at a time.

A row is acknowledged only after ClickHouse has it. A crash in between repeats rows and never loses
one; the table folds repeats by `row_id`. While a store is away, rows wait in their stream.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Iterable, Sequence
from typing import Protocol

import structlog

from shared.clickhouse.client import ClickHouseAway, ContentRefused
from shared.clock import Clock
from shared.metrics import Metrics
from shared.spend import SpendRow
from shared.valkey.client import CommandRefused, ValkeyAway
from shared.valkey.spend import ENTRIES_PER_READ, Claim, Undecodable
from workers.metering.batch import Batch
from workers.metering.outage import Outage, rest

POLL_SECONDS = 0.25
"""After a read that emptied the stream, rows gather this long: four wake-ups a second, not one
for each row."""
IDLE_SECONDS = 0.5
"""How long an idle read waits on the server; also the longest a SIGTERM goes unseen."""
MAX_REFUSED_IN_A_ROW = 100
"""More refusals than this with no row accepted between them point at us or the table, not at the
rows: the rest waits, so that one bug cannot drain the stream into the quarantine."""

log = structlog.get_logger()


class SpendSource(Protocol):
    """What the sink asks of the streams; `shared.valkey.spend.SpendStream` says what each does."""

    async def ensure_group(self) -> None: ...
    async def claim(self, count: int, block_seconds: float = 0) -> list[Claim]: ...
    async def own(self) -> list[Claim]: ...
    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Claim]: ...
    async def ack(self, claims: Iterable[Claim]) -> None: ...
    async def quarantine(self, claim: Claim, reason: str) -> None: ...
    async def leave(self) -> None: ...


class SpendTable(Protocol):
    """What the sink asks of the table."""

    async def insert(self, rows: Sequence[SpendRow], *, token: str) -> None: ...


class Sink:
    """One metering process."""

    def __init__(
        self,
        stream: SpendSource,
        table: SpendTable,
        batch: Batch,
        *,
        metrics: Metrics,
        clock: Clock,
        lease_seconds: float,
        drain_seconds: float,
    ) -> None:
        self._stream = stream
        self._table = table
        self._batch = batch
        self._metrics = metrics
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._valkey = Outage("valkey", clock)
        self._clickhouse = Outage("clickhouse", clock)
        self._must_recover = True
        self._next_reclaim = clock.monotonic() + lease_seconds
        self._refused_in_a_row = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then stores what it holds, within `drain_seconds`."""
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
                watch = group.create_task(self._limit(limit, stop))
                while not stop.is_set():
                    await self._tried(self._turn(stop), stop)
                await self._drain()
                watch.cancel()
        except TimeoutError:
            # They stay pending: another process takes them over.
            log.warning(
                "Stopped with rows pending", action="metering_stopped", rows=len(self._batch)
            )

    async def _limit(self, limit: asyncio.Timeout, stop: asyncio.Event) -> None:
        """From the stop on, whatever is being waited for may take `drain_seconds` in all."""
        await stop.wait()
        limit.reschedule(asyncio.get_running_loop().time() + self._drain_seconds)

    async def _tried(self, work: Awaitable[None], stop: asyncio.Event | None = None) -> None:
        """Does it, or waits a while for the store that was away."""
        try:
            await work
        except (ValkeyAway, CommandRefused) as error:
            self._must_recover = True
            await self._valkey.wait(str(error), stop)
        except ClickHouseAway as error:
            await self._clickhouse.wait(str(error), stop)

    async def _turn(self, stop: asyncio.Event) -> None:
        if self._must_recover:
            await self._recover()
        # A batch that is due is not added to: memory stays bounded while ClickHouse is away.
        if not self._batch.due:
            await self._read(stop)
        if self._batch.due:
            await self._flush(self._batch.claims)

    async def _recover(self) -> None:
        """Entries whose delivery got lost with a connection are ours, and nobody else's to read."""
        await self._stream.ensure_group()
        await self._take(await self._stream.own())
        self._must_recover = False
        self._back(self._valkey)

    async def _read(self, stop: asyncio.Event) -> None:
        if self._clock.monotonic() >= self._next_reclaim:
            await self._take(await self._stream.reclaim(self._lease_seconds, self._batch.room))
            self._next_reclaim = self._clock.monotonic() + self._lease_seconds
        asked = min(self._batch.room, ENTRIES_PER_READ)
        if not asked:
            return
        claims = await self._stream.claim(asked, 0 if len(self._batch) else IDLE_SECONDS)
        await self._take(claims)
        entries = {(claim.shard, claim.entry) for claim in claims}
        if len(entries) < asked and len(self._batch):
            await rest(max(0.0, min(POLL_SECONDS, self._batch.seconds_left)), stop)

    async def _take(self, claims: Sequence[Claim]) -> None:
        self._batch.add(claim for claim in claims if not isinstance(claim.row, Undecodable))
        for claim in claims:
            if isinstance(claim.row, Undecodable):
                await self._quarantine(claim, f"unreadable: {claim.row.reason}")

    async def _flush(self, claims: list[Claim]) -> None:
        """Stores these claims; what it could not store stays in the batch."""
        try:
            await self._insert(claims)
        except ContentRefused as refusal:
            await self._part(claims, str(refusal))
        else:
            # Insert, then acknowledge: this order is the delivery guarantee.
            await self._stream.ack(claims)
            self._batch.remove(claims)

    async def _insert(self, claims: Sequence[Claim]) -> None:
        rows = [claim.row for claim in claims if isinstance(claim.row, SpendRow)]
        began = self._clock.monotonic()
        try:
            await self._table.insert(rows, token=token_of(rows))
        except ContentRefused:
            self._metrics.spend_batches.labels("refused").inc()
            raise
        except ClickHouseAway:
            self._metrics.spend_batches.labels("away").inc()
            raise
        self._back(self._clickhouse)
        self._refused_in_a_row = 0
        self._metrics.spend_batches.labels("inserted").inc()
        self._metrics.spend_rows.inc(len(rows))
        self._metrics.spend_insert_seconds.observe(self._clock.monotonic() - began)

    async def _part(self, claims: list[Claim], reason: str) -> None:
        """One of these rows cannot be stored: halves them until it stands alone."""
        if len(claims) > 1:
            half = len(claims) // 2
            await self._flush(claims[:half])
            await self._flush(claims[half:])
            return
        await self._quarantine(claims[0], reason)
        self._batch.remove(claims)
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= MAX_REFUSED_IN_A_ROW:
            self._refused_in_a_row = 0
            raise ClickHouseAway(f"it refuses every row: {reason}")

    async def _quarantine(self, claim: Claim, reason: str) -> None:
        await self._stream.quarantine(claim, reason)
        self._metrics.spend_quarantined.inc()
        log.error(
            "A spend row was set aside",
            action="spend_quarantined",
            entry=claim.entry.decode(),
            row_id=claim.row.row_id if isinstance(claim.row, SpendRow) else None,
            reason=reason,
        )

    async def _drain(self) -> None:
        """Stores what is held, however often that takes, and leaves no name behind."""
        while len(self._batch):
            await self._tried(self._flush(self._batch.claims))
        with contextlib.suppress(ValkeyAway, CommandRefused):
            await self._stream.leave()

    def _back(self, outage: Outage) -> None:
        if outage.end():
            self._metrics.store_reconnects.labels(outage.store).inc()


def token_of(rows: Iterable[SpendRow]) -> str:
    """The same for the same rows: a repeated insert may be recognized and spared.

    An attempt that ended a second time, after its store forgot the first, is another row of one id:
    it must be stored, to replace the first.
    """
    endings = "".join([f"{row.row_id}{row.ended_at.timestamp()}" for row in rows])
    return hashlib.blake2b(endings.encode(), digest_size=16).hexdigest()
