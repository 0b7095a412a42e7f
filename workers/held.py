"""A job this worker holds: its claim, its numbering of replies, and what may still happen to it."""

import asyncio

from shared.job import JobHeader
from shared.valkey.lane import Claim


class HeldJob:
    """Lives from the claim until the settle script has answered.

    A job ends in one of four ways: it is settled by its handler; it is cancelled (its client left:
    settled with a row, at once, or once its stream was read to its end); it is lost (another worker took over: nothing may be posted or settled); or
    it is given back (this worker drains, or does not know its catalog).
    """

    __slots__ = (
        "_flow",
        "_limit",
        "_read_on_seconds",
        "_task",
        "begun",
        "cancelled",
        "claim",
        "consumed",
        "delta_bytes",
        "deltas",
        "drained",
        "ended_rows",
        "ending",
        "header",
        "lost",
        "number",
        "output_seen",
        "posted",
        "request_id",
        "started_at", "timed_out",
    )  # fmt: skip

    def __init__(self, claim: Claim, header: JobHeader, *, started_at: float) -> None:
        self.claim = claim
        self.request_id = claim.request_id
        self.header = header
        self.started_at = started_at
        self.number = 0
        """Of the last reply framed."""
        self.deltas: list[bytes] = []
        self.delta_bytes = 0
        self.posted = False
        """A delta was handed to the outbox: from here on the job counts as spoken."""
        self.consumed = False
        """A part of its upload was taken off the queue: from here on it counts as spoken too."""
        self.ending = False
        self.cancelled = False
        self.lost = False
        self.drained = False
        self.timed_out = False
        self.output_seen = 0
        """Output tokens counted so far, for the heartbeat."""
        self.ended_rows: list[tuple[str, bytes]] = []
        """Rows of attempts that ended but are not yet written: the next script takes them along."""
        self._flow: asyncio.Event | None = None
        """While its reader is behind; set when it has caught up."""
        self.begun = False
        """Its task took its first step; one cancelled before that would run nothing, not its end."""
        self._task: asyncio.Task[None] | None = None
        self._read_on_seconds = 0.0
        self._limit: asyncio.TimerHandle | None = None
        """While it is read to its end although its client has left."""

    @property
    def was_stopped(self) -> bool:
        """Whether its task was cancelled for a reason of the job's own."""
        return self.cancelled or self.lost or self.drained or self.timed_out

    @property
    def was_spoken(self) -> bool:
        return self.posted or self.consumed or self.claim.spoke

    def run_as(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def pause(self) -> None:
        """Its reader is behind."""
        self._flow = self._flow or asyncio.Event()

    def resume(self) -> None:
        if self._flow is not None:
            self._flow.set()
            self._flow = None

    async def flowing(self) -> None:
        """Waits while its reader is behind. Bounded by the job's own deadline."""
        while self._flow is not None:
            await self._flow.wait()

    def read_on(self, seconds: float) -> None:
        """Should its client leave from now on, the handler reads what it is reading to its end, for
        so long at most. 0: it is stopped at once, also where it reads on already."""
        self._read_on_seconds = seconds
        if not seconds and self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def cancel(self) -> None:
        """Its client left: the handler is stopped, now or after a while, and settles what was used."""
        if self.cancelled or self.lost or self.ending:
            return
        self.cancelled = True
        if self._read_on_seconds:
            self.resume()  # nobody is behind any more
            loop = asyncio.get_running_loop()
            self._limit = loop.call_later(self._read_on_seconds, self._stop)
        else:
            self._stop()

    def lose(self) -> None:
        """Another worker has it: stop, and touch nothing."""
        if not self.lost:
            self.lost = True
            self._stop()

    def time_out(self) -> None:
        """Its whole time is over: the handler is stopped and says so."""
        if self._limit is not None:
            self._stop()
        elif not (self.cancelled or self.lost or self.ending or self.timed_out):
            self.timed_out = True
            self._stop()

    def drain(self) -> None:
        """This worker stops: give the job back if it has not spoken, else end it as failed."""
        if self._limit is not None:
            self._stop()
        elif not (self.cancelled or self.lost or self.ending):
            self.drained = True
            self._stop()

    def _stop(self) -> None:
        self.read_on(0)
        if self.begun and self._task is not None and not self._task.done():
            self._task.cancel()
