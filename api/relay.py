"""Relays a job's replies to the client: a whole answer, an error, or a stream of ready bytes.

The status waits for the first reply, so a failure before it is an ordinary error. A failure after
it is one error event, and then the connection is closed with the body unfinished: neither `[DONE]`
nor the framing's own end may make a cut stream look complete.
"""

from collections.abc import AsyncIterator, Mapping

import msgspec
from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.admit import Gate
from api.auth import AUTH_MS
from api.http_protocol import ABORT, CLIENT_LEFT, ON_CLIENT_LEFT
from api.problems import send_error
from api.waiter import Waiter
from shared.clock import Clock
from shared.errors import ErrorBody
from shared.job import JobHeader
from shared.metrics import Metrics
from shared.reply import Answer
from shared.tally import Counter

ANSWER_HEADERS = frozenset({"x-ollm-cache", "cache-control", "x-accel-buffering"})
"""What a worker may add to a whole answer's head. Another name is of a release we do not know."""
SSE_HEADERS = {"cache-control": "no-cache"}
_encode = msgspec.json.Encoder().encode


class StreamCut(Exception):
    """A stream ended without its end; the route returns with the response unfinished."""


class ReadyStream(EventSourceResponse):
    """sse-starlette's response, fed with ready-made bytes.

    Its ping, its exit listener and its disconnect listener are not started: keep-alive, drain and
    the watch over the client are ours already, and three tasks a stream cost more than the stream.
    """

    @override
    def __init__(self, parts: "Parts") -> None:
        vars(self).update(_SAME_FOR_ALL)
        self.body_iterator = self._parts = parts

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stream_response(send)

    @override
    async def _stream_response(self, send: Send) -> None:
        parts = self._parts
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in parts:
            more = not parts.are_over
            await send({"type": "http.response.body", "body": part, "more_body": more})
            if not more:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


# What the library sets up for a response, made once: its headers are the same for every stream, and
# its lock, which nobody takes here, costs more than all of the rest.
_SAME_FOR_ALL = vars(EventSourceResponse(_nothing(), headers=SSE_HEADERS, sep="\n", ping=0))


class Parts:
    """A stream's bytes, joined as they gathered. Raises StreamCut after an error event.

    Not a generator, which the event loop would have to keep a record of.
    """

    __slots__ = ("_cut", "_has_told", "_waiter")

    def __init__(self, waiter: Waiter, cut: Counter) -> None:
        waiter.streaming = True
        self._waiter = waiter
        self._cut = cut
        self._has_told = False

    def __aiter__(self) -> "Parts":
        return self

    @property
    def are_over(self) -> bool:
        """Whether the stream is complete and all of it was taken: its end can go with the last."""
        waiter = self._waiter
        return waiter.ended and not waiter.parts and waiter.error is None

    async def __anext__(self) -> bytes:
        waiter = self._waiter
        await waiter.changed()
        if waiter.left or self._has_told:
            raise StreamCut  # nobody is there to send anything to, or nothing is left to say
        if waiter.parts:
            return waiter.take()
        if waiter.error is None:
            raise StopAsyncIteration
        self._has_told = True
        self._cut.labels(waiter.error.code or waiter.error.type).inc()
        return error_event(waiter.error)


class Relay:
    """Ends every request it is given with `finish` or `cancel` on the gate."""

    def __init__(self, gate: Gate, clock: Clock, metrics: Metrics) -> None:
        self._gate = gate
        self._clock = clock
        self._cut = metrics.streams_cut
        self._left = metrics.client_disconnects
        self._open = metrics.open_requests
        # Ours: a drain lets streams end by themselves, see the API's drain checklist.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]

    async def __call__(
        self, header: JobHeader, waiter: Waiter, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._open.inc()
        # Listen, then look: the client may have left while the job was being admitted.
        waiter.abort = scope.get(ABORT)
        scope[ON_CLIENT_LEFT] = waiter.leave
        if scope.get(CLIENT_LEFT):
            waiter.leave()
        try:
            await waiter.changed()
            if not waiter.left:
                await self._answer(header, waiter, scope, receive, send)
        finally:
            self._open.dec()
            if waiter.left:
                self._left.inc()
            # Whatever happened: nobody may keep working for a client that is gone.
            if waiter.settled:
                self._gate.finish(waiter, header)
            else:
                self._gate.cancel(waiter, header)

    async def _answer(
        self, header: JobHeader, waiter: Waiter, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if waiter.answer is not None:
            await self._send_whole(waiter.answer, header, scope, send)
        elif waiter.error is not None and not waiter.parts:
            await send_error(send, waiter.error)
        else:
            try:
                await ReadyStream(Parts(waiter, self._cut))(scope, receive, send)
            except StreamCut:
                return  # the server closes the connection of a response that was not finished

    async def _send_whole(
        self, answer: Answer, header: JobHeader, scope: Scope, send: Send
    ) -> None:
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            *timings(answer, auth_ms=scope[AUTH_MS], since_ms=self._since_ms(header)),
        ]
        if answer.cost_usd is not None:
            headers.append((b"x-ollm-cost-usd", answer.cost_usd.encode()))
        if answer.headers:
            headers += known_headers(answer.headers)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _since_ms(self, header: JobHeader) -> float:
        return (self._clock.now() - header.admitted_at) * 1000


def timings(
    answer: Answer, *, auth_ms: float, since_ms: float
) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The stages of a whole answer, `since_ms` after its admission.

    Their sum is all the time we know of: what is neither authentication, queue nor upstream is
    relay. The overhead is that sum without upstream.
    """
    relay_ms = max(0.0, since_ms - answer.upstream_ms - answer.queue_ms)
    stages = (auth_ms, answer.queue_ms, answer.upstream_ms, relay_ms)
    told = b"auth;dur=%.2f, queue;dur=%.2f, upstream;dur=%.2f, relay;dur=%.2f" % stages
    overhead = b"%.2f" % (auth_ms + answer.queue_ms + relay_ms)
    return (b"x-ollm-overhead-ms", overhead), (b"server-timing", told)


def known_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Those of a worker's that are sent on."""
    return [
        (name.encode(), value.encode())
        for name, value in headers.items()
        if name in ANSWER_HEADERS and value.isascii() and value.isprintable()
    ]


def error_event(error: ErrorBody) -> bytes:
    """The one event that ends a cut stream."""
    return b"data: " + _encode({"error": error.document()["error"]}) + b"\n\n"
