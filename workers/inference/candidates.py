"""The candidates of a job that is answered by a panel, and the one answer that is made of theirs.

Each candidate is asked whole, at the same time as the others, by calls of its own. What some of them
fail at the others make up for.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import structlog

from shared.dialects import chat as dialect
from shared.dialects.request import of_job
from shared.errors import GatewayError, InvalidRequest, TimedOut
from shared.job import JobHeader
from shared.prompt import has_arguments
from shared.usage import as_openai
from workers.inference.attempt import Attempt
from workers.inference.chat import ChatAnswer, Earlier
from workers.inference.chat_exchange import ChatExchange
from workers.inference.comparison import choice_of, to_choose, to_fuse
from workers.inference.job import Job
from workers.inference.message import decode as decode_answer
from workers.inference.message import estimate_input_tokens
from workers.inference.panel import Candidacy, Panel
from workers.inference.routing import Route
from workers.inference.streamed import stream_of
from workers.inference.usage_cost import add_cost
from workers.providers.http.response import read_all

AT_ONCE_BYTES = 64 << 10
"""A stream up to this size is posted in one piece, with the job's end; a longer one bit by bit."""
STREAMING = ("stream", "stream_options")

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Candidate:
    """An exchange whose answer stays here."""

    def __init__(self, job: Job, header: JobHeader, document: dict[str, Any]) -> None:
        """`header` is the job's, as if it were asked whole."""
        self._job = job
        self._document = document
        self.header = header
        self.input_estimate = estimate_input_tokens(document)
        self.waits_for_client = False
        self.answer: dict[str, Any] | None = None

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        return route.provider.request(
            "chat.completions",
            dialect.to_upstream(
                self._document,
                route.upstream_model,
                cap=self.header.output_caps.get(route.model, 0),
                cap_field=route.provider.settings.output_cap_field,
            ),
            row_id=attempt.row_id,
            timeouts=route.timeouts,
        )

    async def relay(self, response: httpx.Response, route: Route, attempt: Attempt) -> None:
        data = await read_all(response, self._job.max_answer_bytes)
        answer = ChatAnswer(
            self.header, provider_type=route.provider.settings.type, clock=self._job.clock
        )
        self.answer = decode_answer(answer.whole(data, attempt, self.input_estimate))
        if attempt.digests is not None:
            attempt.digests.whole(data, None)
        self._job.calls.complete(attempt)


class Candidates:
    """Of one job."""

    def __init__(self, job: Job, document: dict[str, Any], panel: Panel) -> None:
        """Raises InvalidRequest where the request does not fit a candidate's templates."""
        self._job = job
        self._document = document
        self._panel = panel
        self._header = msgspec.structs.replace(job.header, stream=False, include_usage=False)
        self._whole = {name: value for name, value in document.items() if name not in STREAMING}
        self._asked = [self._candidate(one, self._whole) for one in panel.candidates]
        first = self._applied(panel.candidates[0], self._whole)
        self._first_messages: list[dict[str, Any]] = first["messages"]
        self._failures: list[GatewayError] = []
        self._answers: list[dict[str, Any]] = []
        """Of all that were asked, the evaluator included."""

    def _applied(self, of: Candidacy, document: dict[str, Any]) -> dict[str, Any]:
        return of.variant.applied(document, self._panel.function)

    def _candidate(self, of: Candidacy, document: dict[str, Any]) -> Candidate:
        return Candidate(self._job, self._header, self._applied(of, document))

    async def answer(self) -> None:
        """Takes the job to its end. Raises GatewayError."""
        async with asyncio.TaskGroup() as group:
            for one, candidacy in zip(self._asked, self._panel.candidates, strict=True):
                group.create_task(self._ask(one, candidacy.routes))
        answers = [one.answer for one in self._asked if one.answer is not None]
        if not answers:
            raise self._failures[0]
        if self._panel.type == "best_of_n":
            await self._send(await self._best(answers))
        else:
            await self._fuse(answers)

    async def _ask(self, one: Candidate, routes: Sequence[Route]) -> None:
        try:
            async with asyncio.timeout(self._panel.timeout_seconds):
                await self._job.calls.through(one, routes)
        except GatewayError as error:
            self._failures.append(error)
        except TimeoutError:
            self._job.calls.give_up(one)
            self._failures.append(TimedOut("The candidates were too slow."))
        if one.answer is not None:
            self._answers.append(one.answer)

    # ---- best_of_n

    async def _best(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The one that the evaluator chooses; the first, where it says nothing of use."""
        if len(answers) == 1:
            self._job.meter.chosen("alone")
            return answers[0]
        asked = to_choose(self._messages, answers)
        evaluator = self._candidate(self._panel.aggregator, asked)
        await self._ask(evaluator, self._panel.aggregator.routes)
        choice = choice_of(evaluator.answer, len(answers))
        outcome = "chosen" if choice is not None else "unclear" if evaluator.answer else "failed"
        self._job.meter.chosen(outcome)
        if choice is None:
            log.warning(
                "An evaluator chose nothing, and the first candidate was taken",
                action="evaluator_" + outcome,
                request_id=self._job.header.request_id,
                function=self._panel.function,
            )
        return answers[choice or 0]

    async def _send(self, answer: dict[str, Any]) -> None:
        earlier = self.earlier
        answer["usage"] = as_openai(earlier.usage)
        if self._job.cost_of is not None:
            add_cost(answer, self._job.calls.cost_usd)
        header = self._job.header
        if header.include_raw_usage:
            answer["ollm_raw_usage"] = earlier.raw_usage
        if header.include_raw_response:
            answer["ollm_raw_response"] = earlier.raw_response
        if not header.stream:
            self._job.end_whole(_encode(answer))
            return
        chunks = list(stream_of(answer, include_usage=header.include_usage))
        if sum(map(len, chunks)) > AT_ONCE_BYTES:
            for chunk in chunks[:-1]:
                self._job.post(chunk, output_seen=0)
                await self._job.keep_bounds()
            del chunks[:-1]
        self._job.end_stream(b"".join(chunks))

    # ---- mixture_of_n

    async def _fuse(self, answers: Sequence[dict[str, Any]]) -> None:
        document = {**self._document, "messages": to_fuse(self._messages, answers)}
        routes = self._panel.aggregator.routes
        exchange = ChatExchange(self._job, document, routes, earlier=self.earlier)
        await self._job.calls.through(exchange, routes)

    # ---- both

    @property
    def earlier(self) -> Earlier:
        """What the calls until now add to the answer."""
        return Earlier(
            usage=self._job.calls.usage,
            raw_usage=[raw for one in self._answers for raw in one.get("ollm_raw_usage", ())],
            raw_response=[raw for one in self._answers for raw in one.get("ollm_raw_response", ())],
        )

    @property
    def _messages(self) -> list[dict[str, Any]]:
        """The request's; as the first candidate has them where they are arguments for templates."""
        asked: list[dict[str, Any]] = self._document["messages"]
        return self._first_messages if has_arguments(asked) else asked


async def convene(job: Job, body: bytes, panel: Panel, routes: Sequence[Route]) -> None:
    """Takes a job to its end by a panel, or by the routes of its fallbacks. Raises GatewayError."""
    document = of_job(job.header, body)
    fallback = ChatExchange(job, document, routes)
    candidates = Candidates(job, document, panel)
    try:
        await candidates.answer()
    except GatewayError as error:
        if not routes or job.has_spoken or isinstance(error, InvalidRequest):
            raise
        fallback.earlier = candidates.earlier
        await job.calls.through(fallback, routes)
