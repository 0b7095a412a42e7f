"""A transcription as an exchange with a provider: a form whose file is sent while it comes in.

The answer is passed on byte for byte: JSON once it is seen to be one, subtitles and text as text.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec

from shared.dialects.transcription import DEFAULT_FORMAT, JSON_FORMATS
from shared.upload import decode_form
from shared.usage import heard_seconds, told_seconds, usage_from_transcription
from workers.inference.attempt import Attempt
from workers.inference.job import Job
from workers.inference.message import text_of
from workers.inference.routing import Route
from workers.inference.upstream_errors import protocol_error
from workers.inference.usage_cost import document_with_cost
from workers.providers.http.multipart import FormBody
from workers.providers.http.response import read_all

TEXT = "text/plain; charset=utf-8"
"""Whatever the provider calls it: nothing it sends is to be taken for a page or a script."""

_decode = msgspec.json.Decoder().decode


class TranscriptionExchange:
    """One job's."""

    input_estimate = 0
    """Nobody knows how long it is before it was heard."""

    def __init__(self, job: Job, body: bytes, _routes: Sequence[Route]) -> None:
        self._job = job
        self.header = job.header
        self._form = decode_form(body)
        self._source = job.upload()

    @property
    def waits_for_client(self) -> bool:
        return self._source.is_waiting

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        body = FormBody(
            [("model", route.upstream_model), *self._form.fields],
            self._heard(attempt),
            self._later,
            file_name=self._form.file_name,
            content_type=self._form.content_type,
        )
        return route.provider.upload(
            "audio.transcriptions",
            body,
            content_type=body.content_type,
            row_id=attempt.row_id,
            timeouts=route.timeouts,
        )

    async def _heard(self, attempt: Attempt) -> AsyncIterator[bytes]:
        """The file's bytes; how much there was is counted, should the provider not say."""
        async for data in self._source.chunks():
            attempt.audio_sent(len(data))
            yield data

    def _later(self) -> tuple[tuple[str, str], ...]:
        return () if self._source.end is None else self._source.end.fields

    def _format(self) -> str:
        given = dict([*self._form.fields, *self._later()])
        return given.get("response_format", DEFAULT_FORMAT)

    async def relay(
        self,
        response: httpx.Response,
        route: Route,  # noqa: ARG002 - others need it
        attempt: Attempt,
    ) -> None:
        if self._source.end is None:
            raise protocol_error("The provider answered before it had the whole file.")
        data = await read_all(response, self._job.max_answer_bytes)
        text = _text(data)
        if self._format() not in JSON_FORMATS:
            attempt.content_arrived(len(text))
            attempt.audio_seconds = heard_seconds(text)
            self._end(data, data, attempt, content_type=TEXT)
            return
        document = _document(data)
        if isinstance(document, dict) and document.get("error"):
            raise protocol_error("The provider answered 200 with an error.")
        if not isinstance(document, dict) or not isinstance(document.get("text"), str):
            raise protocol_error("The provider's answer has no text.")
        usage = usage_from_transcription(document.get("usage"))
        if usage is not None:
            attempt.usage_arrived(usage)
        attempt.audio_seconds = told_seconds(document)
        attempt.content_arrived(len(document["text"]))
        attempt.upstream_id = text_of(document.get("id")) or ""
        body = data
        if self._job.cost_of is not None:
            body = document_with_cost(data, self._job.cost_of(attempt))
        self._end(data, body, attempt)

    def _end(
        self, data: bytes, body: bytes, attempt: Attempt, *, content_type: str = "application/json"
    ) -> None:
        """`data` is the provider's, `body` the client's."""
        if attempt.digests is not None:
            attempt.digests.whole(data, body)
        self._job.calls.complete(attempt)
        self._job.end_whole(body, content_type=content_type)


def _text(data: bytes) -> str:
    """Raises AttemptFailed."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise protocol_error("The provider's answer is not text.") from error


def _document(data: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
