"""POST audio/transcriptions: it hears how long a file is, and what its SHA-256 is, and says so."""

import hashlib
from collections.abc import Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.ids import new_id
from workers.simulator.chat import CLIENT_ID_CHARACTERS
from workers.simulator.exchange import JSON, ClientClosed, Exchange
from workers.simulator.ledger import Call, Ledger
from workers.simulator.problems import Refused
from workers.simulator.profiles import Profile

TRANSCRIBE_NAMES = frozenset({"sim/transcribe", "sim_transcribe"})
FORMATS = frozenset({"json", "text", "srt", "verbose_json", "vtt"})
BYTES_PER_TOKEN = 1600
"""A tenth of a second of speech at 128 kbit/s."""
SECONDS_PER_TOKEN = 0.1
TEXT = b"text/plain; charset=utf-8"


class Form:
    """What a form held; of its file only a summary."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self.file_bytes = 0
        self.is_over = False
        self._digest = hashlib.sha256()
        self._name = ""
        self._text: bytearray | None = None
        self._header = [b"", b""]
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_begin": self._on_header_begin,
                "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> None:
        """Raises Refused (400)."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Refused(400, "The form is malformed.", code="invalid_form") from error

    def _on_header_begin(self) -> None:
        self._header = [b"", b""]

    def _on_header(self, at: int, part: bytes) -> None:
        self._header[at] += part

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(value)
            self._name = options.get(b"name", b"").decode()
            self._text = None if b"filename" in options else bytearray()
            if b"filename" in options:
                self.file_name = options[b"filename"].decode()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            self._text += data[start:end]
        else:
            self._digest.update(data[start:end])
            self.file_bytes += end - start

    def _on_part_end(self) -> None:
        if self._text is not None:
            self.fields[self._name] = self._text.decode()

    def _on_end(self) -> None:
        self.is_over = True


class Audio:
    """A call is in the ledger from its body's first bytes on."""

    def __init__(self, *, ledger: Ledger) -> None:
        self._ledger = ledger

    async def transcribe(self, exchange: Exchange, profile: Profile) -> None:
        client_id = exchange.header("x-client-request-id")
        call: Call | None = None
        form = Form(_boundary(exchange))
        try:
            async for part in exchange.parts():
                call = call or self._ledger.begin(
                    call_id=new_id(),
                    client_request_id=client_id and client_id[:CLIENT_ID_CHARACTERS],
                    profile=profile.name,
                )
                form.feed(part)
            await self._answer(exchange, profile, form, call)
        except ClientClosed:
            if call is not None:
                self._ledger.end(call, "aborted")
            raise
        except Refused:
            if call is not None:
                self._ledger.end(call, "fault", fault="refused")
            raise

    async def _answer(
        self, exchange: Exchange, profile: Profile, form: Form, call: Call | None
    ) -> None:
        kind = _check(form)
        if call is None:
            raise Refused(400, "The form is empty.", code="invalid_form")
        call.model = form.fields["model"]
        text = f"{form.file_name}: {form.file_bytes} bytes, sha256 {form.sha256}"
        call.prompt_tokens = -(-form.file_bytes // BYTES_PER_TOKEN)
        call.completion_tokens = len(text.split())
        headers = profile.headers(call.call_id)
        if kind in ("json", "verbose_json"):
            document = _document(text, kind, call, form.fields)
            await exchange.respond(200, profile.encode(document), kind=JSON, headers=headers)
        else:
            await exchange.respond(200, _subtitles(text, kind), kind=TEXT, headers=headers)
        self._ledger.end(call, "completed")


def _boundary(exchange: Exchange) -> bytes:
    kind, options = parse_options_header(exchange.headers.get(b"content-type", b""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(400, "The body must be a form.", code="invalid_form")
    return options[b"boundary"]


def _check(form: Form) -> str:
    """The format asked for. Raises Refused."""
    if not form.is_over or form.file_name is None:
        raise Refused(400, "The form is not complete.", code="invalid_form", param="file")
    if form.fields.get("model") not in TRANSCRIBE_NAMES:
        raise Refused(404, "The model does not exist.", code="model_not_found", param="model")
    kind = form.fields.get("response_format", "json")
    if kind not in FORMATS:
        raise Refused(400, "No such format.", code="invalid_value", param="response_format")
    return kind


def _document(text: str, kind: str, call: Call, fields: Mapping[str, str]) -> dict[str, object]:
    usage = {
        "type": "tokens",
        "input_tokens": call.prompt_tokens,
        "input_token_details": {"text_tokens": 0, "audio_tokens": call.prompt_tokens},
        "output_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
    }
    if kind == "json":
        return {"text": text, "usage": usage}
    seconds = round(call.prompt_tokens * SECONDS_PER_TOKEN, 1)
    return {
        "task": "transcribe",
        "language": fields.get("language", "english"),
        "duration": seconds,
        "text": text,
        "segments": [{"id": 0, "start": 0.0, "end": seconds, "text": text}],
        "usage": usage,
    }


def _subtitles(text: str, kind: str) -> bytes:
    if kind == "text":
        return f"{text}\n".encode()
    if kind == "srt":
        return f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n".encode()
    return f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n".encode()
