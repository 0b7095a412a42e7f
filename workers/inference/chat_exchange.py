"""A chat completion as an exchange with a provider: the request, the whole answer, the stream."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import httpx

from shared.dialects import chat as dialect
from shared.dialects.request import of_job
from shared.errors import UpstreamFailed
from shared.job import LANE_OF_TIER, TIER_OF_LANE
from shared.run import unpack
from shared.usage import Usage
from workers.inference.attempt import Attempt
from workers.inference.chat import ChatAnswer, Earlier
from workers.inference.digests import GATHERED, LARGE_BYTES, Streamed
from workers.inference.events import EventSplitter, EventTooLong
from workers.inference.job import Job
from workers.inference.message import estimate_input_tokens
from workers.inference.recording import is_finished
from workers.inference.routing import Route
from workers.inference.upstream_errors import AttemptFailed, protocol_error
from workers.inference.usage_cost import of_nothing
from workers.providers.http.response import is_over, read_all

REST_SECONDS = 0.25
"""After [DONE]: time for the body to end, so that the connection can be used again."""
EVENT_STREAM = "text/event-stream"
DONE_EVENT = b"[DONE]"


class ChatExchange:
    """One job's; an answer is begun anew with every attempt."""

    waits_for_client = False

    @classmethod
    def begin(cls, job: Job, body: bytes, routes: Sequence[Route]) -> Self:
        """Of a sealed body. Raises InvalidRequest."""
        return cls(job, _within_lane(of_job(job.header, body), job.header.lane), routes)

    def __init__(
        self,
        job: Job,
        document: dict[str, Any],
        routes: Sequence[Route],
        *,
        earlier: Earlier | None = None,
    ) -> None:
        """Raises InvalidRequest: a request fits the templates of all its variants, or none is asked."""
        self._job = job
        self._document = document
        self.header = job.header
        self.earlier = earlier
        self._streamed: Streamed | None = None
        """Of the attempt whose stream is being read, where it is to have a receipt."""
        self._of_variants: dict[str, dict[str, Any]] = {}
        for route in routes:
            if route.variant is not None and route.variant_name not in self._of_variants:
                applied = route.variant.applied(self._document, route.function)
                self._of_variants[route.variant_name] = applied
        self.input_estimate = estimate_input_tokens(self._document)

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        document = dialect.to_upstream(
            self._of_variants.get(route.variant_name, self._document),
            route.upstream_model,
            cap=self.header.output_caps.get(route.model, 0),
            cap_field=route.provider.settings.output_cap_field,
        )
        if self._job.allowance is not None:
            self._job.allowance.begin(dialect.output_cap(document))
        return route.provider.request(
            "chat.completions", document, row_id=attempt.row_id, timeouts=route.timeouts
        )

    async def relay(self, response: httpx.Response, route: Route, attempt: Attempt) -> None:
        answer = self._answer(route)
        if self.header.stream:
            with self._job.reading_on(attempt):
                await self._relay_stream(response, answer, attempt)
        else:
            data = await read_all(response, self._job.max_answer_bytes)
            if attempt.recording is not None:
                attempt.recording.add([data])
            body = answer.whole(data, attempt, self.input_estimate)
            if attempt.digests is not None:
                attempt.digests.whole(data, body)
            self._job.calls.complete(attempt)
            self._job.end_whole(body)

    def _answer(self, route: Route, *, created: int | None = None) -> ChatAnswer:
        """`created`: of an answer from the cache."""
        cost_of = self._job.cost_of
        return ChatAnswer(
            self.header,
            provider_type=route.provider.settings.type,
            clock=self._job.clock,
            created=created,
            earlier=self.earlier,
            cost_of=of_nothing if cost_of is not None and created is not None else cost_of,
        )

    def replay(self, pieces: Sequence[bytes], route: Route, attempt: Attempt) -> bytes:
        attempt.usage_arrived(Usage())  # else a stream without usage would be counted by its text
        answer = self._answer(route, created=int(self._job.clock.now()))
        if not self.header.stream:
            return answer.whole(pieces[0], attempt, self.input_estimate)
        text = b"".join(answer.chunks(pieces, attempt))
        return unpack(text) + answer.ending(attempt, self.input_estimate)

    def is_complete(self, pieces: Sequence[bytes]) -> bool:
        return is_finished(pieces)

    async def _relay_stream(
        self, response: httpx.Response, answer: ChatAnswer, attempt: Attempt
    ) -> None:
        """Relays events until [DONE]. An end without it is a failure, never a completion."""
        if EVENT_STREAM not in response.headers.get("content-type", ""):
            raise protocol_error("The provider did not answer with an event stream.")
        events = EventSplitter()
        pieces = response.stream.__aiter__()  # type: ignore[union-attr]
        streamed = attempt.digests.stream() if attempt.digests is not None else None
        self._streamed = streamed
        async for piece in pieces:
            if streamed is not None:
                streamed.read.append(piece)
                if len(piece) > LARGE_BYTES or len(streamed.read) > GATHERED:
                    streamed.hash()
            try:
                data = events.feed(piece)
            except EventTooLong as error:
                raise protocol_error("An event of the provider's stream is too long.") from error
            last = self._relay_events(data, answer, attempt)
            if last is not None:
                await self._finish(last, response, pieces, attempt)
                return
            if self._job.allowance is not None:
                await self._job.allowance.keep(attempt)
            await self._job.keep_bounds()
        raise AttemptFailed(
            UpstreamFailed("The provider's stream ended early.", code="upstream_protocol_error"),
            "retry",
        )

    def _relay_events(
        self, events: list[bytes], answer: ChatAnswer, attempt: Attempt
    ) -> bytes | None:
        """Posts what the events say; once the stream is complete, its last text."""
        done = events.index(DONE_EVENT) if DONE_EVENT in events else None
        out: list[bytes] = []
        if attempt.recording is not None:
            attempt.recording.add(events[:done])
        if attempt.digests is not None and attempt.digests.retention is not None:
            attempt.digests.retention.answered(events[:done])
        try:
            out.extend(answer.chunks(events[:done], attempt))
            if done is not None and attempt.finish_reason is None:
                raise protocol_error("The provider's stream ended without a finish reason.")
        except AttemptFailed:
            self._post(b"".join(out), attempt)
            raise
        if done is None:
            self._post(b"".join(out), attempt)
            return None
        out.append(answer.ending(attempt, self.input_estimate))
        return b"".join(out)

    def _post(self, text: bytes, attempt: Attempt) -> None:
        if self._streamed is not None and not self._job.client_left:
            self._streamed.heard.append(text)
        self._job.post(text, output_seen=attempt.output_seen)

    async def _finish(
        self, last: bytes, response: httpx.Response, pieces: AsyncIterator[bytes], attempt: Attempt
    ) -> None:
        """The stream is complete: the job is settled with its last text.

        Where nothing is hashed that comes first. Else it waits for the end of the body, so that all
        of it is hashed; should the job be stopped meanwhile, it is complete all the same.
        """
        digests = attempt.digests
        if digests is None:
            self._settle(last, attempt)
        else:
            digests.complete = True
        try:
            if not is_over(response):
                await _rest(pieces, self._streamed)
        except asyncio.CancelledError:
            if digests is not None and self._job.may_settle:
                self._settle(last, attempt)
            raise
        if digests is not None:
            self._settle(last, attempt)

    def _settle(self, last: bytes, attempt: Attempt) -> None:
        if self._job.client_left:
            self._job.end_unheard()
            return
        if self._streamed is not None:
            self._streamed.heard.append(last)
        self._job.calls.complete(attempt)
        self._job.end_stream(last)


async def _rest(pieces: AsyncIterator[bytes], streamed: Streamed | None) -> None:
    """Reads the end of a body whose stream is complete, for the connection's sake."""
    try:
        async with asyncio.timeout(REST_SECONDS):
            async for piece in pieces:
                if streamed is not None:
                    streamed.read.append(piece)
    except (TimeoutError, httpx.TransportError):
        return  # the answer is whole; only the connection is not worth keeping


def _within_lane(document: dict[str, Any], lane: str) -> dict[str, Any]:
    """A key that may not have a better lane here may not buy a better tier at the provider either."""
    tier = document.get("service_tier")
    if tier is not None and LANE_OF_TIER.get(tier) != lane:
        document["service_tier"] = TIER_OF_LANE[lane]
    return document
