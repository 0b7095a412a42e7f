"""One chat job on its way through a worker, from its claim to its settlement."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from shared.clock import Clock
from shared.dialects import chat as dialect
from shared.errors import GatewayError, Internal, Overloaded, TimedOut, UpstreamFailed
from shared.reply import Answer, Kind, encode_answer, encode_error
from shared.seal import Seal, SealBroken
from shared.spend import SpendRow, Status, encode_row
from workers.held import HeldJob
from workers.inference.attempt import Attempt, lost_row
from workers.inference.chat import ChatAnswer, estimate_input_tokens
from workers.inference.events import EventSplitter, EventTooLong
from workers.inference.meter import Meter
from workers.inference.routing import Route, Routing, backoff
from workers.inference.upstream_errors import (
    AttemptFailed,
    from_status,
    from_transport,
    protocol_error,
)
from workers.outbox import Outbox
from workers.providers.http.response import ResponseTooLarge, read_all

MAX_ERROR_BODY_BYTES = 64 << 10
REST_SECONDS = 0.25
"""After [DONE]: time for the body to end, so that the connection can be used again."""
EVENT_STREAM = "text/event-stream"
DONE_EVENT = b"[DONE]"


class Recorder(Protocol):
    """Records attempts before their sends, and takes jobs back; the runner is one."""

    async def attempt(self, held: HeldJob, *, row_id: str, row: bytes) -> bytes: ...

    async def give_back(self, held: HeldJob) -> None: ...


class Catalogs(Protocol):
    """Finds the routing of the catalog a job was admitted under."""

    async def routing(self, config_hash: str) -> Routing | None: ...

    def is_off(self, provider: str) -> bool:
        """Whether the catalog in force has switched a provider off."""
        ...


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the jobs of one process share."""

    catalogs: Catalogs
    transport: httpx.AsyncBaseTransport
    seal: Seal
    clock: Clock
    meter: Meter


class ChatJob:
    """One job's run: attempts, retries, fallback, relaying, and the settlement.

    However a job ends, it ends in exactly one call of the outbox, which carries the row of every
    attempt. That call does not wait, so a cancellation cannot come between.
    """

    def __init__(
        self, shared: Collaborators, held: HeldJob, outbox: Outbox, recorder: Recorder
    ) -> None:
        self._shared = shared
        self._held = held
        self._header = held.header
        self._outbox = outbox
        self._recorder = recorder
        self._clock = shared.clock
        self._document: dict[str, Any] = {}
        self._open: Attempt | None = None
        self._route: Route | None = None
        self._recording: str | None = None
        self._number = len(held.claim.attempts)
        self._max_answer_bytes = 0
        self._model_label = ""
        self._input_estimate = 0
        self._flow = asyncio.Event()
        self._flow.set()

    # ---- the way through

    async def run(self) -> None:
        held, header = self._held, self._header
        held.ended_rows.extend(
            (row_id, lost_row(row, clock=self._clock, spoke=False, output_seen=0))
            for row_id, row in held.claim.attempts.items()
        )
        self._shared.meter.claimed(header.lane, max(0.0, held.started_at - header.admitted_at))
        if held.started_at > header.queue_deadline and held.claim.deliveries == 1:
            raise TimedOut("The request waited too long in the queue.", code="queue_timeout")
        routing = await self._shared.catalogs.routing(header.config_hash)
        if routing is None:
            await self._recorder.give_back(held)
            return
        self._document = self._opened()
        self._input_estimate = estimate_input_tokens(self._document)
        self._max_answer_bytes = routing.catalog.document.limits.max_answer_bytes
        model, routes = routing.routes(header.model, header.pinned_provider)
        self._model_label = routing.label(header.model)
        held.on_pause, held.on_resume = self._flow.clear, self._flow.set
        await self._try(routes, model.tier)

    def _opened(self) -> dict[str, Any]:
        bound_to = b"job:" + self._header.request_id.encode()
        try:
            body = self._shared.seal.open(self._held.claim.sealed_body, bound_to)
        except SealBroken as error:
            raise Internal("The request could not be read by a worker.") from error
        return dialect.decode(body)

    async def _try(self, routes: Sequence[Route], tier: str) -> None:
        """Each route in turn, each as often as its retries allow; the last failure is told."""
        failure: GatewayError | None = None
        for route in routes:
            if self._shared.catalogs.is_off(route.provider.name):
                continue  # switched off since the job was admitted: that applies at once
            for attempt in range(1, route.retries.attempts + 1):
                if not route.breaker.allows():
                    failure = failure or Overloaded(
                        "The provider is failing and is left alone for a moment.",
                        code="provider_unavailable",
                    )
                    break
                try:
                    await self._call(route, tier)
                except AttemptFailed as failed:
                    failure = failed.error
                    if not await self._may_go_on(failed, route, attempt):
                        break
                else:
                    return
        raise failure or Overloaded(
            "No provider of the model is switched on.", code="model_unavailable"
        )

    async def _may_go_on(self, failed: AttemptFailed, route: Route, attempt: int) -> bool:
        """Judges a failed attempt; True when the same route should be tried again."""
        if self._held.posted or failed.remedy == "none":
            # The client has seen a part, or the request itself is to blame: nobody else is asked.
            raise failed.error
        if failed.remedy != "retry" or attempt >= route.retries.attempts:
            return False
        pause = backoff(route.retries, attempt, failed.error.retry_after)
        if pause > route.retries.max_backoff_seconds:
            return False
        await asyncio.sleep(pause)
        return True

    async def _call(self, route: Route, tier: str) -> None:
        """One attempt. Returns when the job has been settled; raises AttemptFailed."""
        self._number += 1
        attempt = Attempt(
            self._header,
            route,
            tier=tier,
            number=self._number,
            claimed_at=self._held.started_at,
            input_estimate=self._input_estimate,
            clock=self._clock,
        )
        self._route = route
        # Record, then send: whoever takes over must know that this call may have happened.
        self._recording = attempt.row_id
        outcome = await self._recorder.attempt(
            self._held, row_id=attempt.row_id, row=attempt.recorded()
        )
        self._recording = None
        if outcome != b"ok":
            self._not_ours(outcome)
        self._open = attempt
        try:
            await self._exchange(route, attempt)
        except AttemptFailed as failed:
            self._attempt_failed(attempt, failed)
            raise
        route.breaker.succeeded()

    def _not_ours(self, outcome: bytes) -> None:
        """The record was refused: the job was cancelled, or another worker has it."""
        if outcome == b"cancelled":
            self._held.cancel()
        else:
            self._held.lose()
        raise asyncio.CancelledError

    async def _exchange(self, route: Route, attempt: Attempt) -> None:
        request = route.provider.chat_request(
            dialect.to_upstream(self._document, route.upstream_model),
            row_id=attempt.row_id,
            timeouts=route.timeouts,
        )
        try:
            response = await self._shared.transport.handle_async_request(request)
            try:
                await self._relay(response, route, attempt)
            finally:
                await response.stream.aclose()  # type: ignore[union-attr]
        except (httpx.TransportError, ResponseTooLarge) as error:
            raise from_transport(error) from error

    async def _relay(self, response: httpx.Response, route: Route, attempt: Attempt) -> None:
        if response.status_code != 200:
            body = await read_all(response, MAX_ERROR_BODY_BYTES)
            raise from_status(response.status_code, response.headers, body)
        answer = ChatAnswer(
            self._header, provider_type=route.provider.settings.type, clock=self._clock
        )
        if self._header.stream:
            await self._relay_stream(response, answer, attempt)
        else:
            await self._relay_whole(response, answer, attempt)

    async def _relay_whole(
        self, response: httpx.Response, answer: ChatAnswer, attempt: Attempt
    ) -> None:
        data = await read_all(response, self._max_answer_bytes)
        body = answer.whole(data, attempt, self._input_estimate)
        row = self._close(attempt, "completed")
        reply = Answer(
            body=body,
            upstream_ms=row.upstream_ms,
            queue_ms=row.queue_ms,
            cost_usd=format(row.cost_usd, "f"),
        )
        self._outbox.end(self._held, Kind.WHOLE, encode_answer(reply), [encode_row(row)])

    # ---- streams

    async def _relay_stream(
        self, response: httpx.Response, answer: ChatAnswer, attempt: Attempt
    ) -> None:
        """Relays events until [DONE]. An end without it is a failure, never a completion."""
        if EVENT_STREAM not in response.headers.get("content-type", ""):
            raise protocol_error("The provider did not answer with an event stream.")
        events = EventSplitter()
        pieces = response.stream.__aiter__()  # type: ignore[union-attr]
        async for piece in pieces:
            try:
                data = events.feed(piece)
            except EventTooLong as error:
                raise protocol_error("An event of the provider's stream is too long.") from error
            if self._relay_events(data, answer, attempt):
                await self._rest(pieces)
                return
            await self._keep_bounds()
        raise AttemptFailed(
            UpstreamFailed("The provider's stream ended early.", code="upstream_protocol_error"),
            "retry",
        )

    def _relay_events(self, events: list[bytes], answer: ChatAnswer, attempt: Attempt) -> bool:
        """Posts what the events say; True when the stream is complete and settled."""
        done = events.index(DONE_EVENT) if DONE_EVENT in events else None
        out: list[bytes] = []
        try:
            out.extend(answer.chunks(events[:done], attempt))
            if done is not None and attempt.finish_reason is None:
                raise protocol_error("The provider's stream ended without a finish reason.")
        except AttemptFailed:
            self._outbox.post(self._held, b"".join(out))
            raise
        if done is None:
            self._held.output_seen = attempt.output_seen
            self._outbox.post(self._held, b"".join(out))
            return False
        out.append(answer.ending(attempt, self._input_estimate))
        row = self._close(attempt, "completed")
        self._outbox.end(self._held, Kind.END, b"".join(out), [encode_row(row)])
        return True

    async def _keep_bounds(self) -> None:
        """Stops reading while the client, or Valkey, is behind."""
        if not self._flow.is_set():
            await self._flow.wait()
        if self._outbox.is_full(self._held):
            await self._outbox.room()

    async def _rest(self, pieces: AsyncIterator[bytes]) -> None:
        """Reads the end of a body whose stream is complete, for the connection's sake."""
        try:
            async with asyncio.timeout(REST_SECONDS):
                async for _ in pieces:
                    pass
        except (TimeoutError, httpx.TransportError):
            return  # the answer is whole; only the connection is not worth keeping

    # ---- ends

    def _close(
        self,
        attempt: Attempt,
        status: Status,
        *,
        error_code: str | None = None,
        billed: bool = True,
    ) -> SpendRow:
        """The attempt's final row; from here on it is not open any more."""
        self._open = None
        row = attempt.ended(status, error_code=error_code, billed=billed)
        self._measure(attempt, row)
        return row

    def _attempt_failed(self, attempt: Attempt, failed: AttemptFailed) -> None:
        """Its row is written by the next attempt's record, or by the settlement."""
        breaker = self._route.breaker if self._route else None
        if breaker is not None:
            (breaker.failed if failed.against_provider else breaker.succeeded)()
        row = self._close(attempt, "failed", error_code=failed.error.code, billed=self._held.posted)
        self._held.ended_rows.append((row.row_id, encode_row(row)))

    def fail(self, error: GatewayError) -> None:
        """Ends the job with an error for the client."""
        if self._held.ending:
            return
        rows = []
        if self._open is not None:
            self._abandon_breaker(timed_out=isinstance(error, TimedOut))
            row = self._close(self._open, "failed", error_code=error.code, billed=self._held.posted)
            rows.append(encode_row(row))
        self._outbox.end(self._held, Kind.FAILED, encode_error(error.body()), rows)
        self._shared.meter.ended("failed")

    async def stopped(self) -> None:
        """The task was cancelled: by the client, by another worker's claim, or by a drain."""
        held = self._held
        if not held.timed_out:
            self._abandon_breaker(timed_out=False)
        if held.cancelled:
            self._end_cancelled()
        elif held.timed_out:
            self.fail(TimedOut("The request took too long.", code="deadline_exceeded"))
        elif held.drained and not held.was_spoken:
            if self._open is not None:
                row = self._close(self._open, "failed", error_code="worker_drained", billed=False)
                held.ended_rows.append((row.row_id, encode_row(row)))
            elif self._recording is not None:
                held.ended_rows.append((self._recording, b""))  # it was never sent: no row
            await self._recorder.give_back(held)
        elif held.drained:
            self.fail(UpstreamFailed("The stream was interrupted.", code="stream_interrupted"))

    def _end_cancelled(self) -> None:
        """What the provider generated until now is metered and billed."""
        rows = []
        if self._open is not None:
            row = self._close(self._open, "cancelled", error_code="client_disconnected")
            rows.append(encode_row(row))
        error = UpstreamFailed("The client closed the request.", code="client_disconnected")
        self._outbox.end(self._held, Kind.FAILED, encode_error(error.body()), rows)
        self._shared.meter.ended("cancelled")

    def _abandon_breaker(self, *, timed_out: bool) -> None:
        if self._open is not None and self._route is not None:
            (self._route.breaker.failed if timed_out else self._route.breaker.abandoned)()

    def _measure(self, attempt: Attempt, row: SpendRow) -> None:
        self._shared.meter.attempted(
            row,
            model=self._model_label,
            upstream_seconds=attempt.upstream_seconds,
            ttft=attempt.ttft_seconds,
        )
        if row.status == "completed":
            self._shared.meter.ended("completed")
