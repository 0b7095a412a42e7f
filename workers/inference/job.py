"""One job on its way through a worker, from its claim to its settlement, whatever its endpoint."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from shared.document import Attestation
from shared.errors import GatewayError, Internal, TimedOut, UpstreamFailed
from shared.job import JobHeader
from shared.reply import Answer, Kind, encode_answer, encode_error
from shared.seal import SealBroken
from shared.spend import charge_of, encode_row
from workers.held import HeldJob
from workers.inference.allowance import Allowance
from workers.inference.attempt import Attempt, lost_row
from workers.inference.cache import Hit, JobCache, Replays
from workers.inference.calls import Calls
from workers.inference.digests import asked_by_client
from workers.inference.exchange import Collaborators, Exchange, Recorder
from workers.inference.panel import Panel, panel_of
from workers.inference.routing import Route
from workers.inference.upload_source import UploadSource
from workers.inference.usage_cost import CostOf
from workers.outbox import Outbox

UNKNOWN_SECONDS = 0.2
"""Another worker may know the job's catalog or endpoint; without a pause this one would only claim
it again."""


class Begin(Protocol):
    """Makes an endpoint's exchange of an opened body, for these routes. Raises GatewayError."""

    def __call__(self, job: "Job", body: bytes, routes: Sequence[Route], /) -> Exchange: ...


class Convene(Protocol):
    """Takes a job to its end by a panel, or by the routes of its fallbacks. Raises GatewayError."""

    def __call__(
        self, job: "Job", body: bytes, panel: Panel, routes: Sequence[Route], /
    ) -> Awaitable[None]: ...


class Job:
    """One job's run: its calls, and the settlement.

    However a job ends, it ends in exactly one call of the outbox, which carries the row of every
    attempt. That call does not wait, so a cancellation cannot come between.
    """

    def __init__(
        self,
        shared: Collaborators,
        held: HeldJob,
        outbox: Outbox,
        recorder: Recorder,
        *,
        begin: Begin | None,
        convene: Convene,
    ) -> None:
        """`begin` is None for an endpoint this release does not know."""
        self._shared = shared
        self._held = held
        self._outbox = outbox
        self._recorder = recorder
        self._begin = begin
        self._convene = convene
        self.calls = Calls(shared, held, recorder)
        self.header: JobHeader = held.header
        self.clock = shared.clock
        self.meter = shared.meter
        self.max_answer_bytes = 0
        self.cost_of: CostOf | None = None
        """Where answers say what they cost."""
        self._attestation = Attestation()
        self._cache: JobCache | None = None
        self.allowance = Allowance(held, recorder) if held.header.output_caps else None

    # ---- the way through

    async def run(self) -> None:
        held, header = self._held, self.header
        for row_id, row in held.claim.attempts.items():
            lost = lost_row(row, clock=self.clock, spoke=False, output_seen=0)
            self.calls.note(row_id, encode_row(lost))
        self.meter.claimed(header.lane, max(0.0, held.started_at - header.admitted_at))
        if held.started_at > header.queue_deadline and held.claim.deliveries == 1:
            raise TimedOut("The request waited too long in the queue.", code="queue_timeout")
        routing = await self._shared.catalogs.routing(header.config_hash)
        if routing is None or self._begin is None:
            await asyncio.sleep(UNKNOWN_SECONDS)
            await self._recorder.give_back(held)
            return
        document = routing.catalog.document
        self._attestation = document.attestation
        self.max_answer_bytes = document.limits.max_answer_bytes
        if document.compat.usage_cost:
            self.cost_of = self.calls.cost_with
        self.calls.model_label = routing.label(header.model)
        panel = panel_of(routing, header) if header.function else None
        _, routes = routing.routes_of(header)
        if panel is not None:
            await self._convene(self, self._opened(), panel, routes)
            return
        exchange = self._begin(self, self._opened(), routes)
        if header.cache != "off" and isinstance(exchange, Replays):
            self._cache = self._shared.cache.of_job(
                header, exchange, self._recorder.cache, document.cache
            )
        hit = await self.calls.through(exchange, routes, self._cache)
        if hit is not None:
            self._end_kept(hit)

    def _opened(self) -> bytes:
        bound_to = b"job:" + self.header.request_id.encode()
        try:
            body = self._shared.seal.open(self._held.claim.sealed_body, bound_to)
        except SealBroken as error:
            raise Internal("The request could not be read by a worker.") from error
        if self.calls.are_told:
            self.calls.client_request = asked_by_client(self.header, body)
        return body

    # ---- what an exchange says

    def upload(self) -> UploadSource:
        """The file that follows this job. Taking its first chunk ends all retries."""
        return UploadSource(self._held, self._shared.uploads, self._shared.seal)

    @property
    def has_spoken(self) -> bool:
        return self._held.posted

    def post(self, text: bytes, *, output_seen: int) -> None:
        """A part of a stream, for the client."""
        self._held.output_seen = output_seen
        self._outbox.post(self._held, text)

    @property
    def client_left(self) -> bool:
        """Nobody is posted to any more."""
        return self._held.cancelled

    @property
    def may_settle(self) -> bool:
        """Although its task is being stopped: for a reason of the job's own, which stays ours."""
        return self._held.was_stopped and not self._held.lost

    @contextmanager
    def reading_on(self, attempt: Attempt) -> Iterator[None]:
        """A stream is being read: one of a confidential machine to its end, where the catalog says so,
        for what was broken off is not signed."""
        settings = self._attestation
        if not (settings.drain_on_disconnect and attempt.digests and attempt.row.tier == "TEE"):
            yield
            return
        self._held.read_on(settings.drain_seconds)
        try:
            yield
        finally:
            self._held.read_on(0)

    async def keep_bounds(self) -> None:
        """Stops reading while the client, or Valkey, is behind."""
        if self._held.cancelled:
            return
        await self._held.flowing()
        if self._outbox.is_full(self._held):
            await self._outbox.room()

    def end_stream(self, text: bytes) -> None:
        """The last part of a stream that is complete: the job is settled with it."""
        self._end(Kind.END, text, "completed")

    def end_whole(self, body: bytes, *, content_type: str = "application/json") -> None:
        """A whole answer: the job is settled with it."""
        header = self.header
        reply = Answer(
            body=body,
            content_type=content_type,
            upstream_ms=self.calls.upstream_ms,
            queue_ms=max(0.0, self._held.started_at - header.admitted_at) * 1000,
            cost_usd=format(self.calls.cost_usd, "f"),
            headers=self._cache.headers if self._cache is not None else {},
        )
        self._end(Kind.WHOLE, encode_answer(reply), "completed")

    def _end_kept(self, hit: Hit) -> None:
        """An answer from the cache: the job is settled with it."""
        self._end(Kind.WHOLE, encode_answer(hit.answer), "completed")

    def _end(self, kind: Kind, payload: bytes, outcome: str) -> None:
        """Settles: with the last reply go the rows of all calls, and what they cost."""
        calls = self.calls
        rows = calls.rows
        self._outbox.end(self._held, kind, payload, rows, calls.charge, calls.transcripts)
        self.meter.ended(outcome)
        if self.allowance is not None and charge_of(rows).nano > self.allowance.held_nano:
            self.meter.overran()

    # ---- other ends

    def fail(self, error: GatewayError) -> None:
        """Ends the job with an error for the client."""
        if self._held.ending:
            return
        if self._held.cancelled:
            self._end_cancelled()  # it was read on for nobody
            return
        self.calls.tell_breakers(timed_out=isinstance(error, TimedOut))
        self.calls.end("failed", error_code=error.code, billed=self._held.posted)
        self.calls.tell_refusal()
        self._end(Kind.FAILED, encode_error(error.body()), "failed")

    async def stopped(self) -> None:
        """The task was cancelled: by the client, by another worker's claim, or by a drain."""
        held = self._held
        if not held.timed_out:
            self.calls.tell_breakers(timed_out=False)
        if held.cancelled:
            self._end_cancelled()
        elif held.timed_out:
            self.fail(TimedOut("The request took too long.", code="deadline_exceeded"))
        elif held.drained and not held.was_spoken:
            self.calls.hand_back()
            await self._recorder.give_back(held)
        elif held.drained:
            self.fail(UpstreamFailed("The stream was interrupted.", code="stream_interrupted"))

    def end_unheard(self) -> None:
        """A stream was read to its end after its client had left."""
        self._end_cancelled()

    def _end_cancelled(self) -> None:
        """What the provider generated until now is metered and billed."""
        if self._held.ending:
            return
        self.calls.end("cancelled", error_code="client_disconnected", billed=True)
        error = UpstreamFailed("The client closed the request.", code="client_disconnected")
        self._end(Kind.FAILED, encode_error(error.body()), "cancelled")
