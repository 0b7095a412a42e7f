"""Takes transcripts off their stream and gives each its receipt, whoever dies on the way.

A transcript is ended once its receipt is stored. Until then its lease is renewed; a process that dies
leaves it to another, which makes the receipt again: the store keeps the first.
"""

import asyncio

import structlog

from shared.clock import Clock
from shared.metrics import Metrics
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.receipts import ReceiptStore
from shared.valkey.client import CommandRefused, ValkeyAway
from shared.valkey.receipts import Claimed, ReceiptStream
from workers.receipts.maker import Maker
from workers.receipts.writer import Writer

LOOK_SECONDS = 0.2
AT_ONCE = 500
MOST_UNDER_WAY = 20_000
"""Of some 7 KB each. Most of them wait for a provider that is slow to sign."""
AGAIN_SECONDS = 1.0

log = structlog.get_logger()


class Collector:
    """The loop of one background process."""

    def __init__(
        self, *, stream: ReceiptStream, store: ReceiptStore, maker: Maker, writer: Writer,
        lease_seconds: float, clock: Clock, metrics: Metrics,
    ) -> None:  # fmt: skip
        """`lease_seconds`: a transcript that nobody has renewed for so long is somebody's who died."""
        self._stream = stream
        self._store = store
        self._maker = maker
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._under_way: dict[tuple[int, bytes, int], Claimed] = {}
        self._look_for_left_at = 0.0
        self._is_away = True

    async def run(self) -> None:
        """Until cancelled: what is under way then stays for the next process."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            group.create_task(self._renew())
            while True:
                claimed = await self._claim()
                await self._begin(claimed, group)
                self._metrics.receipts_under_way.set(len(self._under_way))
                if not claimed:
                    await asyncio.sleep(LOOK_SECONDS)

    async def _begin(self, claimed: list[Claimed], group: asyncio.TaskGroup) -> None:
        """From here on everybody can see that the receipts are pending."""
        news = [one for one in claimed if place_of(one) not in self._under_way]
        for one in news:
            self._under_way[place_of(one)] = one
        for at in range(0, len(news), AT_ONCE):
            some = news[at : at + AT_ONCE]
            settled = await self._begun(some)
            for one in some:
                group.create_task(
                    self._end(one) if one.transcript.receipt_id in settled else self._do(one)
                )

    async def _begun(self, some: list[Claimed]) -> set[str]:
        while True:
            try:
                return await self._store.begin([one.transcript for one in some])
            except STORE_ERRORS as error:
                log.warning("Receipts wait", action="receipts_wait", error=type(error).__name__)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _do(self, claimed: Claimed) -> None:
        transcript = claimed.transcript
        try:
            receipt = await self._maker.make(transcript)
        except Exception:  # the outermost loop of a receipt: it stays pending, and is taken over
            log.exception(
                "A receipt failed", action="receipt_failed", request_id=transcript.request_id
            )
            del self._under_way[place_of(claimed)]
            return
        # Write, then acknowledge: a process killed in between has it made again, and dropped.
        await self._writer.write(receipt)
        self._metrics.receipts.labels(receipt.label, receipt.reason or "none").inc()
        self._metrics.receipt_seconds.observe(max(0.0, self._clock.now() - transcript.ended_at))
        await self._end(claimed)

    async def _end(self, claimed: Claimed) -> None:
        try:
            await self._stream.end([claimed])
        except (ValkeyAway, CommandRefused) as error:
            log.warning("A transcript was not ended", action="transcript_kept", error=str(error))
        finally:
            del self._under_way[place_of(claimed)]

    async def _claim(self) -> list[Claimed]:
        """Empty while Valkey is away."""
        room = MOST_UNDER_WAY - len(self._under_way)
        if room <= 0:
            return []
        try:
            if self._is_away:
                await self._stream.ensure_groups()
                self._is_away = False
            return [*await self._left(room), *await self._stream.claim(min(room, AT_ONCE))]
        except (ValkeyAway, CommandRefused) as error:
            if not self._is_away:
                log.warning("Receipts wait", action="receipts_wait", error=str(error))
            self._is_away = True
            return []

    async def _left(self, room: int) -> list[Claimed]:
        now = asyncio.get_running_loop().time()
        if now < self._look_for_left_at:
            return []
        found = await self._stream.take_over(self._lease_seconds, min(room, AT_ONCE))
        self._look_for_left_at = now + (0 if found else self._lease_seconds / 2)
        return found

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                await self._stream.renew(list(self._under_way.values()))
            except (ValkeyAway, CommandRefused) as error:
                log.warning("Leases were not renewed", action="renew_failed", error=str(error))


def place_of(claimed: Claimed) -> tuple[int, bytes, int]:
    return claimed.shard, claimed.entry, claimed.index
