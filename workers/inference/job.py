"""One job on its way through a worker, from its claim to its settlement, whatever its endpoint."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx

from shared.clock import Clock
from shared.errors import GatewayError, Internal, Overloaded, TimedOut, UpstreamFailed
from shared.job import JobHeader
from shared.reply import Answer, Kind, encode_answer, encode_error
from shared.seal import Seal, SealBroken
from shared.spend import SpendRow, Status, encode_row
from workers.held import HeldJob
from workers.inference.attempt import Attempt, lost_row
from workers.inference.meter import Meter
from workers.inference.routing import Route, Routing, backoff
from workers.inference.upstream_errors import AttemptFailed, from_status, from_transport
from workers.outbox import Outbox
from workers.providers.http.response import ResponseTooLarge, read_all

MAX_ERROR_BODY_BYTES = 64 << 10
UNKNOWN_SECONDS = 0.2
"""Another worker may know the job's catalog or endpoint; without a pause this one would only claim
it again."""


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


class Exchange(Protocol):
    """What an endpoint adds to a job: what is sent, and what becomes of the answer."""

    @property
    def input_estimate(self) -> int:
        """Tokens of the request, by its characters: a stand-in for a missing count."""
        ...

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        """The call for one attempt."""
        ...

    async def relay(self, response: httpx.Response, route: Route, attempt: Attempt) -> None:
        """Takes a 200 to the job's end: `end_whole` or `end_stream`. Raises AttemptFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the jobs of one process share."""

    catalogs: Catalogs
    transport: httpx.AsyncBaseTransport
    seal: Seal
    clock: Clock
    meter: Meter


class Begin(Protocol):
    """Makes an endpoint's exchange of an opened body, for these routes. Raises GatewayError."""

    def __call__(self, job: "Job", body: bytes, routes: Sequence[Route], /) -> Exchange: ...


class Job:
    """One job's run: attempts, retries, fallback, and the settlement.

    However a job ends, it ends in exactly one call of the outbox, which carries the row of every
    attempt. That call does not wait, so a cancellation cannot come between.
    """

    def __init__(
        self,
        shared: Collaborators,
        held: HeldJob,
        outbox: Outbox,
        recorder: Recorder,
        begin: Begin | None,
    ) -> None:
        """`begin` is None for an endpoint this release does not know."""
        self._shared = shared
        self._held = held
        self._outbox = outbox
        self._recorder = recorder
        self._begin = begin
        self._open: Attempt | None = None
        self._route: Route | None = None
        self._recording: str | None = None
        self._number = len(held.claim.attempts)
        self._model_label = ""
        self.header: JobHeader = held.header
        self.clock = shared.clock
        self.max_answer_bytes = 0

    # ---- the way through

    async def run(self) -> None:
        held, header = self._held, self.header
        for row_id, row in held.claim.attempts.items():
            self._note(row_id, lost_row(row, clock=self.clock, spoke=False, output_seen=0))
        self._shared.meter.claimed(header.lane, max(0.0, held.started_at - header.admitted_at))
        if held.started_at > header.queue_deadline and held.claim.deliveries == 1:
            raise TimedOut("The request waited too long in the queue.", code="queue_timeout")
        routing = await self._shared.catalogs.routing(header.config_hash)
        if routing is None or self._begin is None:
            await asyncio.sleep(UNKNOWN_SECONDS)
            await self._recorder.give_back(held)
            return
        self.max_answer_bytes = routing.catalog.document.limits.max_answer_bytes
        model, routes = routing.routes_of(header)
        exchange = self._begin(self, self._opened(), routes)
        self._model_label = routing.label(header.model)
        await self._try(exchange, routes, model.tier)

    def _opened(self) -> bytes:
        bound_to = b"job:" + self.header.request_id.encode()
        try:
            return self._shared.seal.open(self._held.claim.sealed_body, bound_to)
        except SealBroken as error:
            raise Internal("The request could not be read by a worker.") from error

    async def _try(self, exchange: Exchange, routes: Sequence[Route], tier: str) -> None:
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
                    await self._call(exchange, route, tier)
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

    async def _call(self, exchange: Exchange, route: Route, tier: str) -> None:
        """One attempt. Returns when the job has been settled; raises AttemptFailed."""
        self._number += 1
        attempt = Attempt(
            self.header,
            route,
            tier=tier,
            number=self._number,
            claimed_at=self._held.started_at,
            input_estimate=exchange.input_estimate,
            clock=self.clock,
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
            await self._exchange(exchange, route, attempt)
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

    async def _exchange(self, exchange: Exchange, route: Route, attempt: Attempt) -> None:
        request = exchange.request(route, attempt)
        try:
            response = await self._shared.transport.handle_async_request(request)
            try:
                if response.status_code != 200:
                    body = await read_all(response, MAX_ERROR_BODY_BYTES)
                    raise from_status(response.status_code, response.headers, body)
                await exchange.relay(response, route, attempt)
            finally:
                await response.stream.aclose()  # type: ignore[union-attr]
        except (httpx.TransportError, ResponseTooLarge) as error:
            raise from_transport(error) from error

    # ---- what an exchange says

    def post(self, text: bytes, *, output_seen: int) -> None:
        """A part of a stream, for the client."""
        self._held.output_seen = output_seen
        self._outbox.post(self._held, text)

    async def keep_bounds(self) -> None:
        """Stops reading while the client, or Valkey, is behind."""
        await self._held.flowing()
        if self._outbox.is_full(self._held):
            await self._outbox.room()

    def end_stream(self, attempt: Attempt, text: bytes) -> None:
        """The last part of a stream that is complete: the job is settled with it."""
        row = self._close(attempt, "completed")
        self._outbox.end(self._held, Kind.END, text, self._written(row))

    def end_whole(
        self, attempt: Attempt, body: bytes, *, content_type: str = "application/json"
    ) -> None:
        """A whole answer: the job is settled with it."""
        row = self._close(attempt, "completed")
        reply = Answer(
            body=body,
            content_type=content_type,
            upstream_ms=row.upstream_ms,
            queue_ms=row.queue_ms,
            cost_usd=format(row.cost_usd, "f"),
        )
        self._outbox.end(self._held, Kind.WHOLE, encode_answer(reply), self._written(row))

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
        billed = billed and not self.header.dryrun
        row = attempt.ended(status, error_code=error_code, billed=billed)
        self._measure(attempt, row)
        return row

    def _attempt_failed(self, attempt: Attempt, failed: AttemptFailed) -> None:
        """Its row is written by the next attempt's record, or by the settlement."""
        breaker = self._route.breaker if self._route else None
        if breaker is not None:
            (breaker.failed if failed.against_provider else breaker.succeeded)()
        row = self._close(attempt, "failed", error_code=failed.error.code, billed=self._held.posted)
        self._note(row.row_id, encode_row(row))

    def _note(self, row_id: str, row: bytes) -> None:
        """For the next script to write; a dry run's attempts are as if they had not been sent."""
        self._held.ended_rows.append((row_id, b"" if self.header.dryrun else row))

    def _written(self, row: SpendRow) -> list[bytes]:
        return [] if self.header.dryrun else [encode_row(row)]

    def fail(self, error: GatewayError) -> None:
        """Ends the job with an error for the client."""
        if self._held.ending:
            return
        rows: list[bytes] = []
        if self._open is not None:
            self._abandon_breaker(timed_out=isinstance(error, TimedOut))
            row = self._close(self._open, "failed", error_code=error.code, billed=self._held.posted)
            rows = self._written(row)
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
                self._note(row.row_id, encode_row(row))
            elif self._recording is not None:
                self._note(self._recording, b"")  # it was never sent: no row
            await self._recorder.give_back(held)
        elif held.drained:
            self.fail(UpstreamFailed("The stream was interrupted.", code="stream_interrupted"))

    def _end_cancelled(self) -> None:
        """What the provider generated until now is metered and billed."""
        rows: list[bytes] = []
        if self._open is not None:
            row = self._close(self._open, "cancelled", error_code="client_disconnected")
            rows = self._written(row)
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
            upstream_seconds=row.upstream_ms / 1000,
            ttft=attempt.ttft_seconds,
        )
        if row.status == "completed":
            self._shared.meter.ended("completed")
