"""One request's replies: in order, whole, or failed; never a stream with a hole that looks whole.

A waiter takes frames in order. Repeats are dropped by number; a gap, or a second claim after the
first reply, ends it as failed.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

from shared.errors import ErrorBody, GatewayError, Overloaded, UpstreamFailed
from shared.reply import Answer, Kind, binding, decode_answer, decode_error, unpack_frame
from shared.run import unpack
from shared.seal import Seal
from shared.valkey.terms import Standing

PAUSE_BYTES = 256 << 10
"""A client this far behind: its worker stops reading from the provider …"""
MAX_BUFFERED_BYTES = 32 << 20
"""A client this far behind all the same is dropped: buffers must stay bounded. Until the word has
reached its worker, a fast provider's stream may bring several megabytes, and one event may be eight."""
MAX_ALL_BUFFERED_BYTES = 512 << 20
"""Of all clients of a process together: whose part passes it is dropped."""
KEEP_ALIVE_SECONDS = 15.0
KEEP_ALIVE = b": keep-alive\n\n"

Word = Literal["pause", "resume"]


class Buffers:
    """What waits for the clients of one process."""

    def __init__(self) -> None:
        self.held = 0


class Waiter:
    """One request's replies: in order, whole, or failed."""

    __slots__ = (
        "_buffers", "_claim", "_expected", "_loop", "_on_word", "_paused", "_seal", "_wake",
        "abort", "answer", "buffered", "ended", "error", "give_up_at", "lane", "left", "parts",
        "quiet_since", "request_id", "settled", "standing", "streaming", "waits_until",
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
        buffers: Buffers | None = None,
    ) -> None:
        self._buffers = buffers or Buffers()
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
        self.abort: Callable[[], None] | None = None
        """Closes the client's connection: its task may be waiting for a client that reads nothing."""
        self.quiet_since = 0.0
        self.standing: Standing | None = None
        """Of the accounts that the request was checked against."""
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
        parts = self._taken()
        if self._paused:
            self._paused = False
            self._on_word(self.request_id, "resume")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _taken(self) -> list[bytes]:
        parts, self.parts = self.parts, []
        self._buffers.held -= self.buffered
        self.buffered = 0
        return parts

    def forget(self) -> None:
        """Nobody takes what is left."""
        self._taken()

    def feed(self, frame: bytes) -> None:
        kind, number, claim, sealed = unpack_frame(frame)
        if self.ended or (kind != Kind.FAILED and self._is_out_of_order(number, claim)):
            return
        self._accept(kind, self._seal.open(sealed, binding(self.request_id, kind, number, claim)))

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
            self._add(unpack(payload))
            if kind == Kind.END:
                self.ended = self.settled = True
        self._notify()

    def _add(self, payload: bytes) -> None:
        self.parts.append(payload)
        self.buffered += len(payload)
        self._buffers.held += len(payload)
        self.quiet_since = self._loop.time()
        if self.buffered > MAX_BUFFERED_BYTES or self._buffers.held > MAX_ALL_BUFFERED_BYTES:
            self._taken()
            self.fail(Overloaded("The client reads too slowly.", code="client_too_slow"))
            self.drop()
        elif self.buffered > PAUSE_BYTES and not self._paused:
            self._paused = True
            self._on_word(self.request_id, "pause")

    def leave(self) -> None:
        self.left = True
        self._notify()

    def drop(self) -> None:
        """Lets go of a client to which nothing can be said any more."""
        if self.abort is not None:
            self.abort()

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
