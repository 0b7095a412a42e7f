"""The calls of one job: made one after the other or side by side, recorded before their sends, and
each with one spend row however it ends."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import httpx
from msgspec.structs import replace

from shared.attestation.verify import TLS_KEY_NOT_ATTESTED
from shared.errors import GatewayError, Overloaded
from shared.ids import new_id
from shared.money import ZERO
from shared.spend import Charge, SpendRow, Status, encode_row
from shared.transcript import Digest, encode_transcript
from shared.usage import Usage, total
from workers.held import HeldJob
from workers.inference.attempt import Attempt
from workers.inference.cache import Hit, JobCache
from workers.inference.digests import Digests, of_row
from workers.inference.exchange import Collaborators, Exchange, Recorder
from workers.inference.permit import NotPermitted, Permit
from workers.inference.permit import permit as permit_for
from workers.inference.routing import Route, backoff
from workers.inference.upstream_errors import AttemptFailed, from_status, from_transport
from workers.providers.http.connection import PeerNotAttested
from workers.providers.http.prepared import pinned
from workers.providers.http.response import ResponseTooLarge, read_all

MAX_ERROR_BODY_BYTES = 64 << 10


@dataclass(slots=True)
class Call:
    """One that is under way."""

    exchange: Exchange
    route: Route
    attempt: Attempt
    sent: bool = False


class Calls:
    """Those under way, and the rows of those that ended."""

    __slots__ = (
        "_held", "_kept", "_number", "_recorder", "_refused", "_shared", "_under_way", "are_told",
        "client_request", "model_label", "transcripts",
    )  # fmt: skip

    def __init__(self, shared: Collaborators, held: HeldJob, recorder: Recorder) -> None:
        self._shared = shared
        self._held = held
        self._recorder = recorder
        self._under_way: dict[str, Call] = {}
        self._kept: list[SpendRow] = []
        """Written with the job's end alone: were this worker to die, the job is run again, and its
        tenant pays for that run."""
        self._number = len(held.claim.attempts)
        self.model_label = ""
        header = held.header
        self.are_told = header.attestation != "off" and not header.dryrun
        """Whether they are to have receipts."""
        self.client_request = Digest()
        self._refused: list[tuple[SpendRow, NotPermitted]] = []
        """Of calls that were not made, and why not."""
        self.transcripts: list[bytes] = []
        """Written with the job's end, and by whoever ends it alone."""

    # ---- making them

    async def through(
        self, exchange: Exchange, routes: Sequence[Route], cache: JobCache | None = None
    ) -> Hit | None:
        """Each route in turn, each as often as its retries allow; the last failure is told.

        Returns when a call has been completed, or with a kept answer: then no call was made.
        Raises GatewayError.
        """
        failure: GatewayError | None = None
        for route in routes:
            if self._shared.catalogs.is_off(route.provider.name):
                continue  # switched off since the job was admitted: that applies at once
            if cache is not None and (hit := await self._found(cache, exchange, route)):
                return hit
            for attempt in range(1, route.retries.attempts + 1):
                if not route.breaker.allows():
                    failure = failure or Overloaded(
                        "The provider is failing and is left alone for a moment.",
                        code="provider_unavailable",
                        retry_after=max(1.0, route.breaker.open_seconds_left),
                    )
                    break
                try:
                    await self._make(exchange, route, cache)
                except AttemptFailed as failed:
                    failure = failed.error
                    if not await self._may_go_on(failed, route, attempt):
                        break
                else:
                    return None
        raise failure or Overloaded(
            "No provider of the model is switched on.", code="model_unavailable"
        )

    async def _found(self, cache: JobCache, exchange: Exchange, route: Route) -> Hit | None:
        hit = await cache.find(route, self._attempt(exchange, route))
        if hit is not None:
            self._kept.append(hit.row)
        return hit

    async def _may_go_on(self, failed: AttemptFailed, route: Route, attempt: int) -> bool:
        """Judges a failed attempt; True when the same route should be tried again."""
        if self._held.was_spoken or self._held.cancelled or failed.remedy == "none":
            # The client has seen a part, or has left, or a part of its upload is gone, or the request
            # itself is to blame: nobody else is asked.
            raise failed.error
        if failed.remedy != "retry" or attempt >= route.retries.attempts:
            return False
        pause = backoff(route.retries, attempt, failed.error.retry_after)
        if pause > route.retries.max_backoff_seconds:
            return False
        await asyncio.sleep(pause)
        return True

    async def _make(self, exchange: Exchange, route: Route, cache: JobCache | None) -> None:
        """One attempt. Raises AttemptFailed."""
        # Verify, then record, then send: what is refused was never an attempt.
        permit = await self._permit(exchange, route)
        attempt = self._attempt(exchange, route)
        attempt.permit = permit
        self._number += 1
        if cache is not None:
            attempt.recording = cache.recording()
        if self.are_told:
            attempt.digests = Digests(self.client_request, route.provider.settings.type)
        call = Call(exchange, route, attempt)
        row_id = attempt.row_id
        self._under_way[row_id] = call
        # Record, then send: whoever takes over must know that this call may have happened.
        outcome = await self._recorder.attempt(self._held, row_id=row_id, row=attempt.recorded())
        if outcome != b"ok":
            self._not_ours(call, outcome)
        call.sent = True
        try:
            await self._send(exchange, route, attempt)
        except AttemptFailed as failed:
            self._tell_breaker(call, failed)
            self._note_failed(call, failed.error.code, billed=self._held.posted)
            raise
        route.breaker.succeeded()
        if cache is not None:
            await cache.keep(route, attempt)

    async def _permit(self, exchange: Exchange, route: Route) -> Permit | None:
        """None where none is required. Raises NotPermitted."""
        if self._held.header.attestation != "require":
            return None
        try:
            return await permit_for(self._shared.sessions, route.target)
        except NotPermitted as refused:
            self._refused.append((self._attempt(exchange, route).row, refused))
            raise

    def _attempt(self, exchange: Exchange, route: Route) -> Attempt:
        """The next one, not yet recorded."""
        return Attempt(
            exchange.header,
            route,
            tier=route.tier,
            number=self._number + 1,
            claimed_at=self._held.started_at,
            input_estimate=exchange.input_estimate,
            clock=self._shared.clock,
        )

    def _tell_breaker(self, call: Call, failed: AttemptFailed) -> None:
        breaker = call.route.breaker
        if call.exchange.waits_for_client:
            breaker.abandoned()
        elif failed.against_provider:
            breaker.failed()
        else:
            breaker.succeeded()

    def _not_ours(self, call: Call, outcome: bytes) -> None:
        """The record was refused: the job was cancelled, or another worker has it."""
        del self._under_way[call.attempt.row_id]
        call.route.breaker.abandoned()
        if outcome == b"cancelled":
            self._held.cancel()
        else:
            self._held.lose()
        raise asyncio.CancelledError

    async def _send(self, exchange: Exchange, route: Route, attempt: Attempt) -> None:
        request = exchange.request(route, attempt)
        if attempt.permit is not None:
            request = pinned(request, attempt.permit.pins)
        digests = attempt.digests
        if digests is not None:
            digests.forward(request)
        try:
            response = await self._shared.transport.handle_async_request(request)
            try:
                if digests is not None:
                    digests.answered(response)
                if response.status_code != 200:
                    body = await read_all(response, MAX_ERROR_BODY_BYTES)
                    raise from_status(response.status_code, response.headers, body)
                await exchange.relay(response, route, attempt)
            finally:
                await response.stream.aclose()  # type: ignore[union-attr]
        except PeerNotAttested as error:
            if route.target is not None:
                self._shared.sessions.forget(route.target)
            session_id = attempt.permit.session_id if attempt.permit is not None else ""
            refused = NotPermitted(
                "The provider has another TLS key than it attested.", session_id,
                cause=TLS_KEY_NOT_ATTESTED,
            )  # fmt: skip
            self._refused.append((attempt.row, refused))
            raise refused from error
        except (httpx.TransportError, ResponseTooLarge) as error:
            raise from_transport(error) from error

    # ---- ending them

    def complete(self, attempt: Attempt) -> None:
        """Its answer is whole: it is billed, however the job ends."""
        self._kept.append(self._close(attempt, "completed", billed=True))

    def end(self, status: Status, *, error_code: str | None, billed: bool) -> None:
        """The job ends now: so does all that is under way."""
        for call in list(self._under_way.values()):
            if call.sent:
                row = self._close(call.attempt, status, error_code=error_code, billed=billed)
                self._kept.append(row)

    def give_up(self, exchange: Exchange) -> None:
        """This exchange has had its time, and the job goes on."""
        for call in [one for one in self._under_way.values() if one.exchange is exchange]:
            call.route.breaker.abandoned()
            self._note_stopped(call, "candidate_timeout")

    def hand_back(self) -> None:
        """The job is for another worker: nothing of this run is paid for."""
        for call in list(self._under_way.values()):
            self._note_stopped(call, "worker_drained")
        for row in self._kept:
            self.note(row.row_id, encode_row(replace(row, billed=False, cost_usd=ZERO)))
        self._kept.clear()
        self.transcripts.clear()

    def tell_breakers(self, *, timed_out: bool) -> None:
        """What the calls under way say of their providers, now that they are stopped."""
        for call in self._under_way.values():
            breaker = call.route.breaker
            is_slow = timed_out and call.sent and not call.exchange.waits_for_client
            (breaker.failed if is_slow else breaker.abandoned)()

    def _note_stopped(self, call: Call, error_code: str) -> None:
        if call.sent:
            self._note_failed(call, error_code, billed=False)
        else:
            del self._under_way[call.attempt.row_id]
            self.note(call.attempt.row_id, b"")  # it was never sent: no row

    def _note_failed(self, call: Call, error_code: str | None, *, billed: bool) -> None:
        row = self._close(call.attempt, "failed", error_code=error_code, billed=billed)
        if billed:
            self._kept.append(row)  # accounts are charged with the job's end, and with it alone
        else:
            self.note(row.row_id, encode_row(row))

    def _close(
        self, attempt: Attempt, status: Status, *, billed: bool, error_code: str | None = None
    ) -> SpendRow:
        """The attempt's final row; from here on it is not under way any more."""
        self._under_way.pop(attempt.row_id, None)
        billed = billed and not self._held.header.dryrun
        row = attempt.ended(status, error_code=error_code, billed=billed)
        self._shared.meter.attempted(
            row,
            model=row.model if row.variant else self.model_label,
            upstream_seconds=row.upstream_ms / 1000,
            ttft=attempt.ttft_seconds,
        )
        self._tell(attempt, row, error_code or "")
        return row

    def _tell(self, attempt: Attempt, row: SpendRow, cause: str) -> None:
        """Of what was read to its end, or seen by the client in part."""
        digests = attempt.digests
        if digests is None or not digests.is_told:
            return
        transcript = digests.transcript(
            row,
            attestation=self._held.header.attestation,
            upstream_id=attempt.upstream_id,
            cause=cause,
        )
        if attempt.permit is not None:
            transcript = replace(transcript, sessions=(attempt.permit.session_id,))
        self.transcripts.append(encode_transcript(transcript))

    def tell_refusal(self) -> None:
        """Where nobody got the prompt because nobody proved what they run on: who was asked."""
        if not self._refused or not self.are_told or self.transcripts:
            return
        row, last = self._refused[-1]
        told = of_row(row, provider_type="", attestation=self._held.header.attestation)
        sessions = tuple(one.session_id for _, one in self._refused if one.session_id)
        refusal = replace(
            told, receipt_id=new_id(), kind="refusal", cause=last.cause, sessions=sessions
        )
        self.transcripts.append(encode_transcript(refusal))

    # ---- their rows

    def note(self, row_id: str, row: bytes) -> None:
        """For the next script to write; it is not billed. A dry run's attempts are as if they had not been sent."""
        self._held.ended_rows.append((row_id, b"" if self._held.header.dryrun else row))

    @property
    def rows(self) -> Sequence[SpendRow]:
        """For the job's end."""
        return () if self._held.header.dryrun else self._kept

    @property
    def charge(self) -> Charge | None:
        """Of a dry run: its tokens; else that of the rows."""
        if not self._held.header.dryrun:
            return None
        used = self.usage
        return Charge(0, used.input_tokens + used.output_tokens)

    @property
    def usage(self) -> Usage:
        """Of all that are complete."""
        return total(row.usage for row in self._kept)

    @property
    def cost_usd(self) -> Decimal:
        if len(self._kept) == 1:
            return self._kept[0].cost_usd
        return sum((row.cost_usd for row in self._kept), ZERO)

    def cost_with(self, attempt: Attempt) -> Decimal:
        """The job's, once this attempt has completed it."""
        if self._held.header.dryrun:
            return ZERO
        return self.cost_usd + attempt.cost_if_complete

    @property
    def upstream_ms(self) -> float:
        """From the first send of those that are complete to the last end."""
        if len(self._kept) == 1:
            return self._kept[0].upstream_ms
        began = min(row.started_at for row in self._kept)
        return (max(row.ended_at for row in self._kept) - began).total_seconds() * 1000
