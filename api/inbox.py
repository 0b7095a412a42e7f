"""The API process's inbox: one reader per shard, handing replies to the requests that wait.

A waiter takes frames in order. Repeats are dropped by number; a gap, or a second claim after the
first reply, ends it as failed, so that a stream with a hole can never look complete.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

import structlog

from shared.clock import Clock
from shared.errors import ErrorBody, GatewayError, Internal, Overloaded, TimedOut, UpstreamFailed
from shared.job import JobHeader
from shared.reply import Answer, Kind, decode_answer, decode_error, unpack_frame
from shared.seal import Seal
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.inbox import InboxStream
from shared.valkey.keys import ShardKeys

BLOCK_MS = 1000
CONNECT_SECONDS = 1.0
PAUSE_BYTES = 256 << 10
"""A client this far behind: its worker stops reading from the provider …"""
RESUME_BYTES = 64 << 10
"""… until this little is left."""
MAX_BUFFERED_BYTES = 1 << 20
"""A client this far behind all the same is dropped: buffers must stay bounded."""
KEEP_ALIVE_SECONDS = 15.0
KEEP_ALIVE = b": keep-alive\n\n"
SWEEP_SECONDS = 0.5
LATE_SECONDS = 1.0
"""Past the time a job may wait: its worker says so first, if there is one."""
GRACE_SECONDS = 5.0
"""Past a job's deadline: its worker answers first, with more to say than we can."""

log = structlog.get_logger()

Word = Literal["pause", "resume"]


class Waiter:
    """One request's replies: in order, whole, or failed."""

    __slots__ = (
        "_claim", "_expected", "_loop", "_on_word", "_paused", "_seal", "_wake",
        "answer", "buffered", "ended", "error", "give_up_at", "lane", "left", "parts",
        "quiet_since", "request_id", "settled", "streaming", "waits_until",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        *,
        lane: str,
        seal: Seal,
        waits_until: float,
        give_up_at: float,
        on_word: Callable[[str, Word], None],
    ) -> None:
        self.request_id = request_id
        self.lane = lane
        self.waits_until = waits_until
        """Epoch seconds: a job nobody has begun by then is taken out of its lane."""
        self.give_up_at = give_up_at
        self.answer: Answer | None = None
        self.error: ErrorBody | None = None
        self.parts: list[bytes] = []
        self.buffered = 0
        self.ended = False
        self.settled = False
        """The job has ended on the worker's side too: there is nothing to cancel."""
        self.left = False
        """The client closed the connection while it waited."""
        self.streaming = False
        self.quiet_since = 0.0
        self._claim = 0
        self._expected = 1
        self._loop = asyncio.get_running_loop()
        self._on_word = on_word
        self._paused = False
        self._seal = seal
        self._wake: asyncio.Future[None] | None = None

    async def changed(self) -> None:
        """Waits until there is something to take. The inbox bounds this wait by `give_up_at`."""
        if self.parts or self.ended or self.left:
            return
        self._wake = self._loop.create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def take(self) -> bytes:
        """Everything that has gathered, joined."""
        parts, self.parts = self.parts, []
        self.buffered = 0
        if self._paused:
            self._paused = False
            self._on_word(self.request_id, "resume")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def feed(self, frame: bytes) -> None:
        kind, number, claim, sealed = unpack_frame(frame)
        if self.ended or (kind != Kind.FAILED and self._is_out_of_order(number, claim)):
            return
        bound_to = b"reply:%b:%d" % (self.request_id.encode(), number)
        self._accept(kind, self._seal.open(sealed, bound_to))

    def _is_out_of_order(self, number: int, claim: int) -> bool:
        if number < self._expected and claim == self._claim:
            return True  # a repeat: its post was sent again
        if number != self._expected or (self._claim and claim != self._claim):
            self.fail(UpstreamFailed("A part of the answer was lost.", code="stream_interrupted"))
            return True
        self._claim = claim
        self._expected += 1
        return False

    def _accept(self, kind: int, payload: bytes) -> None:
        if kind == Kind.WHOLE:
            self.answer = decode_answer(payload)
            self.ended = self.settled = True
        elif kind == Kind.FAILED:
            self.error = decode_error(payload)
            self.ended = self.settled = True
        else:
            self._add(payload)
            if kind == Kind.END:
                self.ended = self.settled = True
        self._notify()

    def _add(self, payload: bytes) -> None:
        self.parts.append(payload)
        self.buffered += len(payload)
        self.quiet_since = self._loop.time()
        if self.buffered > MAX_BUFFERED_BYTES:
            self.parts.clear()
            self.fail(Overloaded("The client reads too slowly.", code="client_too_slow"))
        elif self.buffered > PAUSE_BYTES and not self._paused:
            self._paused = True
            self._on_word(self.request_id, "pause")

    def leave(self) -> None:
        self.left = True
        self._notify()

    def fail(self, error: GatewayError) -> None:
        if not self.ended:
            self.error = error.body()
            self.ended = True
            self._notify()

    def keep_alive(self, now: float) -> None:
        """A comment for a stream that has been quiet, so that nothing between closes it."""
        if self.streaming and not self.ended and now - self.quiet_since > KEEP_ALIVE_SECONDS:
            self.quiet_since = now
            self.parts.append(KEEP_ALIVE)
            self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Inbox:
    """Reads one shard's replies for this process. `run` must be running for anything to arrive."""

    def __init__(
        self,
        *,
        url: str,
        keys: ShardKeys,
        process: str,
        seal: Seal,
        clock: Clock,
        lease_seconds: float,
        on_word: Callable[[str, Word], None],
        on_late: Callable[[Waiter], None],
    ) -> None:
        """`on_word` sends a word to a job's worker; `on_late` hears of jobs past their time to
        wait."""
        self._stream = InboxStream(keys, process, lease_seconds=lease_seconds)
        self._client = Client(url, name=f"api-inbox-{process[-8:]}", on_connect=self._stream.renew)
        self._leases = Client(url, name=f"api-lease-{process[-8:]}")
        self._seal = seal
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._on_word = on_word
        self._on_late = on_late
        self._waiters: dict[bytes, Waiter] = {}

    def register(self, header: JobHeader) -> Waiter:
        """Opens a place for replies. Register, then send: an answer may come at once."""
        waiter = Waiter(
            header.request_id,
            lane=header.lane,
            seal=self._seal,
            waits_until=header.queue_deadline + LATE_SECONDS,
            give_up_at=header.deadline + GRACE_SECONDS,
            on_word=self._on_word,
        )
        self._waiters[header.request_id.encode()] = waiter
        return waiter

    def forget(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter.request_id.encode(), None)

    def __len__(self) -> int:
        return len(self._waiters)

    async def connected(self, seconds: float) -> None:
        await self._client.connected(seconds)

    async def run(self) -> None:
        """Reads until cancelled; then gives the inbox up."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._client.run())
                group.create_task(self._leases.run())
                group.create_task(self._read())
                group.create_task(self._renew())
                group.create_task(self._sweep())
        finally:
            for waiter in list(self._waiters.values()):
                waiter.fail(Overloaded("The gateway is shutting down.", code="draining"))

    async def _read(self) -> None:
        while True:
            try:
                await self._client.connected(CONNECT_SECONDS)
                for fields in await self._stream.read(self._client, BLOCK_MS):
                    self._dispatch(fields)
            except (ValkeyAway, TimeoutError):
                continue  # the client connects again by itself
            except CommandRefused as error:
                log.error("The inbox cannot be read", action="inbox_refused", error=str(error))
                await asyncio.sleep(SWEEP_SECONDS)

    def _dispatch(self, fields: list[bytes]) -> None:
        pairs = iter(fields)
        for request_id, frame in zip(pairs, pairs, strict=True):
            waiter = self._waiters.get(request_id)
            if waiter is None:
                continue  # its client has left
            try:
                waiter.feed(frame)
            except Exception as error:  # noqa: BLE001  one broken reply must not stop the others
                log.error("A reply could not be read", action="reply_broken", error=repr(error))
                waiter.fail(Internal("The answer could not be read."))

    async def _renew(self) -> None:
        while True:
            try:
                if self._leases.is_connected:
                    await self._stream.renew(self._leases)
            except (ValkeyAway, CommandRefused) as error:
                log.warning(
                    "The inbox lease was not renewed", action="lease_late", error=str(error)
                )
            await asyncio.sleep(self._lease_seconds / 4)

    async def _sweep(self) -> None:
        """One timer for every waiter's deadline and keep-alive, instead of one each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now, quiet = self._clock.now(), loop.time()
            for waiter in list(self._waiters.values()):
                if now > waiter.give_up_at:
                    waiter.fail(TimedOut("The request took too long.", code="deadline_exceeded"))
                elif now > waiter.waits_until:
                    waiter.waits_until = waiter.give_up_at  # asked once
                    self._on_late(waiter)
                else:
                    waiter.keep_alive(quiet)

    async def close(self) -> None:
        """Gives up the lease, so that workers stop at once what nobody waits for."""
        if self._leases.is_connected:
            await self._stream.close(self._leases)
