"""Claims jobs, runs them side by side, renews their leases, and takes over from silent workers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from shared.clock import Clock
from shared.job import LANES
from shared.metrics import Metrics
from shared.seal import Seal
from shared.valkey.accounts import Accounts
from shared.valkey.cache import CacheEntries
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.inbox import Ending, Poster
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim, Lanes
from workers.held import HeldJob
from workers.outbox import Outbox

BLOCK_MS = 1000
CONNECT_SECONDS = 1.0
SLOTS_TO_BLOCK = 16
"""With fewer free slots it matters which lane fills them."""
MOST_PER_LANE = 16
"""A worker takes no more at a time than it can start at once: the rest is for its siblings."""
FULL_PAUSE_SECONDS = 0.05
DEADLINE_SECONDS = 0.25
"""How late a job may notice that its time is over."""
RECLAIM_AT_MOST = 64
HEARTBEAT_AT_MOST = 500
MAX_DELIVERIES = 3
STOP_SECONDS = 5.0
"""For what drained jobs still have to write."""

log = structlog.get_logger()

Handler = Callable[[HeldJob, Outbox], Awaitable[None]]
TakeOver = Callable[[HeldJob, Outbox], None]


class Runner:
    """One worker process on one shard."""

    def __init__(
        self,
        *,
        url: str,
        keys: ShardKeys,
        worker: str,
        seal: Seal,
        clock: Clock,
        metrics: Metrics,
        lease_seconds: float,
        inbox_lease_seconds: float,
        delta_window_seconds: float,
        concurrency: int,
        handle: Handler,
        give_up: TakeOver,
    ) -> None:
        """`handle` runs a job to its end; `give_up` ends one that must not be run again."""
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        self._running = metrics.jobs_running.labels()
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._handle = handle
        self._give_up = give_up
        self._worker = worker
        self._lanes = Lanes(keys, worker, inbox_lease_seconds=inbox_lease_seconds)
        short = worker[-8:]
        self._claims = Client(
            url, name=f"worker-claim-{short}", on_connect=self._lanes.ensure_groups
        )
        self.commands = Client(url, name=f"worker-{short}", on_connect=self._on_reconnect)
        self._control = Client(
            url, name=f"worker-ctl-{short}", on_connect=self._subscribe, on_push=self._on_notice
        )
        self.cache = CacheEntries(self.commands, keys)
        self._accounts = Accounts(keys)
        self._poster = Poster(keys, inbox_lease_seconds=inbox_lease_seconds)
        self.outbox = Outbox(
            self.commands,
            self._poster,
            seal,
            delta_window_seconds=delta_window_seconds,
            on_settled=self._on_settled,
        )
        self._held: dict[str, HeldJob] = {}
        self._slot_free = asyncio.Event()
        self._group = asyncio.TaskGroup()

    @property
    def held_jobs(self) -> int:
        return len(self._held)

    async def run(self, stop: asyncio.Event, drain_seconds: float) -> None:
        """Works until `stop`, then drains:

        1. claim nothing more; 2. let running jobs end; 3. past the limit, give unspoken jobs back
        and end the others as failed; 4. send what is in the outbox; 5. close the connections.
        """
        async with asyncio.TaskGroup() as services:
            clients = (self._claims, self.commands, self._control)
            loops = [services.create_task(client.run()) for client in clients]
            loops += [
                services.create_task(loop())
                for loop in (self.outbox.run, self._heartbeats, self._reclaims, self._deadlines)
            ]
            async with self._group:
                await self._claim_until(stop)
                await self._drain(drain_seconds)
            for loop in loops:
                loop.cancel()

    # ---- claiming

    async def _claim_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            free = self._concurrency - len(self._held)
            if free <= 0:
                await self._wait_for_slot()
                continue
            try:
                await self._claims.connected(CONNECT_SECONDS)
                claims = await self._claim(free)
            except (ValkeyAway, TimeoutError):
                continue  # what was claimed and not heard of is reclaimed after the lease
            except CommandRefused as error:
                await self._on_refused(error)
                continue
            for claim in claims:
                self._start(claim)

    async def _claim(self, free: int) -> list[Claim]:
        """With room for all lanes one blocking read serves; else lanes are weighed."""
        if free >= SLOTS_TO_BLOCK:
            return await self._lanes.wait(
                self._claims, per_lane=min(free // len(LANES), MOST_PER_LANE), block_ms=BLOCK_MS
            )
        claims = await self._lanes.claim(self._claims, free)
        if not claims:
            await self._wait_for_slot()
        return claims

    async def _on_refused(self, error: CommandRefused) -> None:
        if str(error).startswith("NOGROUP"):
            # The lanes were deleted under us (a flushed server): make them again.
            await self._lanes.ensure_groups(self._claims)
            return
        log.error("Jobs cannot be claimed", action="claim_refused", error=str(error))
        await asyncio.sleep(FULL_PAUSE_SECONDS)

    async def _wait_for_slot(self) -> None:
        self._slot_free.clear()
        try:
            async with asyncio.timeout(FULL_PAUSE_SECONDS):
                await self._slot_free.wait()
        except TimeoutError:
            return

    def _start(self, claim: Claim) -> None:
        held = self._hold(claim)
        if held is not None:
            held.run_as(self._group.create_task(self._run(held)))

    def _hold(self, claim: Claim) -> HeldJob | None:
        try:
            header = claim.header()
        except msgspec.DecodeError as error:
            # It stays pending until it is buried: another release may be able to read it.
            log.error("A job's header cannot be read", action="job_unreadable", error=str(error))
            return None
        held = HeldJob(claim, header, started_at=self._clock.now())
        self._held[claim.request_id] = held
        self._running.set(len(self._held))
        return held

    async def _run(self, held: HeldJob) -> None:
        held.begun = True
        try:
            if not held.was_stopped:
                await self._handle(held, self.outbox)
        except asyncio.CancelledError:
            if not held.was_stopped:
                raise  # the whole worker is being cancelled
        except Exception:
            # Neither settled nor renewed: it is taken over after the lease, and buried in the end.
            log.exception("A job was dropped", action="job_dropped", request_id=held.request_id)
        finally:
            if not held.ending:
                self._release(held)  # lost or given back: there is nothing to settle

    def _on_settled(self, held: HeldJob, outcome: bytes) -> None:
        if outcome == b"fenced":
            self._metrics.leases_lost.inc()
        self._release(held)

    def _release(self, held: HeldJob) -> None:
        if self._held.get(held.request_id) is held:
            del self._held[held.request_id]
        self._running.set(len(self._held))
        self._slot_free.set()

    async def give_back(self, held: HeldJob) -> None:
        """Puts an unspoken job back into its lane, uncounted, for another worker."""
        held.lost = True
        try:
            outcome = await self._lanes.give_back(self.commands, held.claim, held.ended_rows)
        except ValkeyAway:
            outcome = b"away"  # it is reclaimed after the lease instead
        log.info(
            "A job was given back",
            action="job_given_back",
            request_id=held.request_id,
            outcome=outcome.decode(),
        )

    async def attempt(self, held: HeldJob, *, row_id: str, row: bytes) -> bytes:
        """Records an attempt before its send, and writes the rows of those that ended."""
        ended = list(held.ended_rows)
        while True:
            try:
                outcome = await self._lanes.attempt(
                    self.commands,
                    held.claim,
                    reply_to=held.header.reply_to,
                    row_id=row_id,
                    row=row,
                    ended=ended,
                )
            except ValkeyAway:
                await asyncio.sleep(FULL_PAUSE_SECONDS)  # recording it again changes nothing
                continue
            if outcome == b"ok" and ended:
                # A job may record several attempts at a time: by now there may be other rows.
                held.ended_rows = [row for row in held.ended_rows if row not in ended]
            return outcome

    async def extend_hold(self, held: HeldJob, nano: int) -> bytes:
        """b"ok" or b"denied"; with another answer the job is not this worker's any more."""
        while True:
            try:
                return await self._accounts.extend_hold(self.commands, held.claim, nano)
            except ValkeyAway:
                # Asked again it may hold twice as much, until the job's end.
                await asyncio.sleep(FULL_PAUSE_SECONDS)

    async def _deadlines(self) -> None:
        """One timer for the deadlines of all jobs, instead of one each."""
        while True:
            await asyncio.sleep(DEADLINE_SECONDS)
            now = self._clock.now()
            for held in list(self._held.values()):
                if now > held.header.deadline:
                    held.time_out()

    # ---- leases

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            if self.commands.is_connected:
                await self._beat_once()

    async def _on_reconnect(self, _client: Client) -> None:
        # Heartbeat first: nobody may judge this worker by an outage's idle time.
        await self._beat_once()

    async def _beat_once(self) -> None:
        jobs = list(self._held.values())
        for start in range(0, len(jobs), HEARTBEAT_AT_MOST):
            some = jobs[start : start + HEARTBEAT_AT_MOST]
            beats = [(held.claim, held.header.reply_to, b"%d" % held.output_seen) for held in some]
            try:
                outcomes = await self._lanes.heartbeat(self.commands, beats)
            except (ValkeyAway, CommandRefused) as error:
                log.warning("A heartbeat failed", action="heartbeat_failed", error=str(error))
                return
            for held, outcome in zip(some, outcomes, strict=True):
                self._heed(held, outcome)

    def _heed(self, held: HeldJob, outcome: bytes) -> None:
        if outcome == b"cancelled":
            held.cancel()
        elif outcome in (b"gone", b"fenced") and not held.ending:
            if outcome == b"fenced":
                self._metrics.leases_lost.inc()
            held.lose()

    async def _subscribe(self, client: Client) -> None:
        await client.call(b"SSUBSCRIBE", self._keys.control(self._worker))

    def _on_notice(self, message: Any) -> None:
        word, _, request_id = message[2].decode().partition(" ")
        held = self._held.get(request_id)
        if held is None:
            return
        if word == "cancel":
            held.cancel()
        elif word == "pause":
            held.pause()
        elif word == "resume":
            held.resume()

    # ---- taking over

    async def _reclaims(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 2 * random.uniform(0.8, 1.2))  # noqa: S311
            since = self.commands.connected_since
            now = asyncio.get_running_loop().time()
            # Others may still be on their way back: wait one lease before judging anybody.
            if not since or now - since < self._lease_seconds:
                continue
            try:
                for lane in LANES:
                    await self._reclaim(lane)
            except (ValkeyAway, CommandRefused) as error:
                log.warning("A reclaim failed", action="reclaim_failed", error=str(error))

    async def _reclaim(self, lane: str) -> None:
        free = self._concurrency - len(self._held)
        if free <= 0:
            return
        for claim in await self._lanes.reclaim(
            self.commands,
            lane,
            lease_ms=int(self._lease_seconds * 1000),
            at_most=min(free, RECLAIM_AT_MOST),
        ):
            await self._take_over(claim)

    async def _take_over(self, claim: Claim) -> None:
        previous = self._held.get(claim.request_id)
        if previous is not None:
            previous.lose()  # this process itself was too slow; the new claim fences the old
        log.info(
            "A job was taken over",
            action="job_reclaimed",
            request_id=claim.request_id,
            deliveries=claim.deliveries,
            spoke=claim.spoke,
        )
        if claim.deliveries > MAX_DELIVERIES:
            await self._lanes.bury(self.commands, claim, f"delivered {claim.deliveries} times")
            self._metrics.jobs_buried.inc()
        if claim.spoke or claim.deliveries > MAX_DELIVERIES:
            self._metrics.jobs_reclaimed.labels("ended").inc()
            held = self._hold(claim)
            if held is not None:
                self._give_up(held, self.outbox)
            elif claim.deliveries > MAX_DELIVERIES:
                await self._discard(claim)
        else:
            self._metrics.jobs_reclaimed.labels("run_again").inc()
            self._start(claim)

    async def _discard(self, claim: Claim) -> None:
        """Removes a buried job that names no inbox, with the rows of its attempts."""
        ending = Ending(
            request_id=claim.request_id,
            lane=claim.lane,
            entry=claim.entry,
            token=claim.token,
            frames=(),
            rows=list(claim.attempts.values()),
        )
        await self._poster.settle(self.commands, "", [ending])

    # ---- stopping

    async def _drain(self, seconds: float) -> None:
        await self._until_idle(seconds)
        for held in list(self._held.values()):
            held.drain()
        await self._until_idle(STOP_SECONDS)

    async def _until_idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._held:
                    self._slot_free.clear()
                    await self._slot_free.wait()
        except TimeoutError:
            return
