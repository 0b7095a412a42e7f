"""Runs jobs to their ends, whatever happens to them, and ends those that must not be run."""

import asyncio
from collections.abc import Mapping, Sequence

import httpx
import structlog
from msgspec.structs import replace

from shared.clock import Clock
from shared.errors import GatewayError, Internal, UpstreamFailed
from shared.metrics import Metrics
from shared.reply import Kind, encode_error
from shared.seal import Seal, SealBroken
from shared.spend import SpendRow
from shared.transcript import Digest, encode_transcript
from shared.valkey.uploads import UploadReader
from workers.held import HeldJob
from workers.inference.attempt import lost_row
from workers.inference.cache import Cache, Puts
from workers.inference.candidates import convene
from workers.inference.chat_exchange import ChatExchange
from workers.inference.digests import asked_by_client, of_row
from workers.inference.document_exchange import EmbeddingsExchange, RerankExchange
from workers.inference.exchange import Catalogs, Collaborators, Recorder
from workers.inference.job import Begin, Job
from workers.inference.meter import Meter
from workers.inference.permit import Attested
from workers.inference.transcription_exchange import TranscriptionExchange
from workers.outbox import Outbox

EXCHANGES: Mapping[str, Begin] = {
    "chat.completions": ChatExchange.begin,
    "embeddings": EmbeddingsExchange,
    "rerank": RerankExchange,
    "audio.transcriptions": TranscriptionExchange,
}
"""By the endpoint in a job's header."""

log = structlog.get_logger()


class Inference:
    """Everything the jobs of this process share."""

    def __init__(
        self,
        *,
        catalogs: Catalogs,
        transport: httpx.AsyncBaseTransport,
        seal: Seal,
        clock: Clock,
        metrics: Metrics,
        uploads: UploadReader,
        sessions: Attested,
    ) -> None:
        meter = Meter(metrics)
        self._shared = Collaborators(
            catalogs=catalogs,
            transport=transport,
            seal=seal,
            clock=clock,
            meter=meter,
            uploads=uploads,
            sessions=sessions,
            cache=Cache(
                seal=seal,
                clock=clock,
                meter=meter,
                name_key=seal.key_for(b"cache names"),
                puts=Puts(),
            ),
        )

    async def run(self, held: HeldJob, outbox: Outbox, recorder: Recorder) -> None:
        """Runs a job until it is settled, lost, or given back. Raises nothing but cancellation."""
        begin = EXCHANGES.get(held.header.endpoint)
        job = Job(self._shared, held, outbox, recorder, begin=begin, convene=convene)
        try:
            await job.run()
        except GatewayError as error:
            job.fail(error)
        except asyncio.CancelledError:
            await job.stopped()
            raise
        except Exception:  # the outermost loop of a job: it must settle whatever went wrong
            log.exception("A job failed", action="job_failed", request_id=held.request_id)
            job.fail(Internal("The gateway failed to run the request."))

    def give_up(self, held: HeldJob, outbox: Outbox) -> None:
        """Ends a job taken over from a dead worker that must not run again."""
        claim = held.claim
        error = UpstreamFailed(
            "The request was interrupted and cannot be resumed."
            if claim.spoke
            else "The request failed repeatedly and was given up.",
            code="stream_interrupted" if claim.spoke else "job_buried",
        )
        seen = int(claim.progress or b"0")
        rows = (
            []
            if held.header.dryrun
            else [
                lost_row(row, clock=self._shared.clock, spoke=claim.spoke, output_seen=seen)
                for row in claim.attempts.values()
            ]
        )
        transcripts = self._interrupted(held, rows) if claim.spoke else []
        outbox.end(held, Kind.FAILED, encode_error(error.body()), rows, transcripts=transcripts)
        self._shared.meter.ended("given_up")

    def _interrupted(self, held: HeldJob, rows: Sequence[SpendRow]) -> list[bytes]:
        """The transcripts of calls whose client saw a part, and whose worker died: what went over the
        wires died with it, but for what the client sent."""
        header, claim = held.header, held.claim
        if header.attestation == "off":
            return []
        try:
            body = self._shared.seal.open(claim.sealed_body, b"job:" + claim.request_id.encode())
        except SealBroken:
            asked = Digest()  # the job ends all the same
        else:
            asked = asked_by_client(header, body)
        types = self._shared.catalogs.provider_types(header.config_hash)
        return [
            encode_transcript(
                replace(
                    of_row(
                        row,
                        provider_type=types.get(row.provider, ""),
                        attestation=header.attestation,
                    ),
                    cause=row.error_code or "",
                    client_request=asked,
                )
            )
            for row in rows
            if row.streamed  # beside it a job may have calls of candidates, which nobody saw
        ]
