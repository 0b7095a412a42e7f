"""Files of up to 100 MB through the gateway: they are passed on as they come, and never held."""

import hashlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from api.cli.ready import Ready
from tests.e2e.ledger import Books
from tests.e2e.started import StartedGateway, until
from tests.e2e.stillness import until_still

PATH = "/v1/audio/transcriptions"
MIB = 1 << 20
LARGE_BYTES = 100 * 1000 * 1000
GROWTH_MIB = 16
BOUNDARY = "gateway-test-boundary"
BLOCK = os.urandom(MIB)
WAIT_SECONDS = 20.0

Part = tuple[str | None, str | bytes]


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[openai.OpenAI]:
    ready = gateway.ready
    with openai.OpenAI(
        base_url=f"{ready.base_url}/v1", api_key=ready.api_key, max_retries=0, timeout=60
    ) as made:
        yield made


def said(data: bytes, name: str = "speech.wav") -> str:
    return f"{name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


# ---- through the official client


def test_a_file_is_transcribed(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(
        model="sim_transcribe", file=("speech.wav", b"hello")
    )
    assert heard.text == said(b"hello")


def test_every_format_comes_as_the_provider_wrote_it(client: openai.OpenAI) -> None:
    def ask(kind: openai.types.AudioResponseFormat) -> str:
        return str(
            client.audio.transcriptions.create(
                model="sim_transcribe", file=("speech.wav", b"hello"), response_format=kind
            )
        )

    text = said(b"hello")
    assert ask("text") == f"{text}\n"
    assert ask("srt") == f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n"
    assert ask("vtt").startswith("WEBVTT\n\n")


def test_a_verbose_answer_keeps_its_segments(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(
        model="sim_transcribe",
        file=("speech.wav", b"hello"),
        response_format="verbose_json",
        language="de",
        temperature=0.2,
        timestamp_granularities=["segment"],
    )
    assert (heard.text, heard.language) == (said(b"hello"), "de")
    assert heard.segments is not None
    assert heard.segments[0].text == said(b"hello")


def test_a_name_of_any_kind_arrives(client: openai.OpenAI) -> None:
    name = 'naïve "take" 2\\.wav'
    heard = client.audio.transcriptions.create(model="sim_transcribe", file=(name, b"hello"))
    assert heard.text.endswith(said(b"hello", "").removeprefix(":"))


def test_a_spend_row_tells_what_it_used(gateway: StartedGateway, client: openai.OpenAI) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    client.audio.transcriptions.create(model="sim_transcribe", file=("a.wav", bytes(16_000)))
    until(lambda: bool(books.rows(since)), WAIT_SECONDS)
    (row,) = books.rows(since)
    assert (row.status, row.usage_source, row.input_tokens) == ("completed", "provider", 10)


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("unheard_of", 404, "model_not_found"),
        ("near_sim_chat", 400, "unsupported_value"),
        ("sim_chat", 404, "model_not_found"),  # the provider does not have it there
    ],
)
def test_a_model_that_cannot_transcribe_is_refused(
    client: openai.OpenAI, model: str, status: int, code: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(model=model, file=("a.wav", b"hello"))
    assert (refused.value.status_code, refused.value.code) == (status, code)


# ---- large files


class Upload:
    """One request, sent by hand, as slowly as a test wants."""

    def __init__(self, ready: Ready, *, length: int | None = None, timeout: float = 60) -> None:
        url = urlsplit(ready.base_url)
        assert url.hostname is not None
        self._connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)
        self._connection.putrequest("POST", PATH)
        self._connection.putheader("authorization", f"Bearer {ready.api_key}")
        self._connection.putheader("content-type", f"multipart/form-data; boundary={BOUNDARY}")
        self._chunked = length is None
        if length is None:
            self._connection.putheader("transfer-encoding", "chunked")
        else:
            self._connection.putheader("content-length", str(length))
        self._connection.endheaders()

    def send(self, data: bytes) -> None:
        self._connection.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def answer(self) -> tuple[int, bytes]:
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")
        return self.early_answer()

    def early_answer(self) -> tuple[int, bytes]:
        """One that comes before all was sent."""
        response = self._connection.getresponse()
        return response.status, response.read()

    def leave(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def send_some(upload: Upload) -> bool:
    """Whether the gateway still takes more."""
    try:
        upload.send(BLOCK)
    except TimeoutError:
        return False
    return True


def field(name: str, value: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{value}\r\n".encode()


FILE_HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.wav"\r\n'
    "Content-Type: audio/wav\r\n\r\n"
).encode()
FILE_END = b"\r\n"
FORM_END = f"--{BOUNDARY}--\r\n".encode()
MODEL = field("model", "sim_transcribe")


def blocks(size: int) -> Iterator[bytes]:
    for start in range(0, size, MIB):
        yield BLOCK[: min(MIB, size - start)]


def sha256(size: int) -> str:
    digest = hashlib.sha256()
    for block in blocks(size):
        digest.update(block)
    return digest.hexdigest()


class Memory:
    """The highest resident memory of some processes while a block runs, above what it was."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._before = [self._now(pid) for pid in pids]
        self._most = list(self._before)
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)

    @staticmethod
    def _now(pid: int) -> float:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._most = [
                max(most, self._now(pid)) for most, pid in zip(self._most, self._pids, strict=True)
            ]

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._watch.start()
        try:
            yield
        finally:
            self._over.set()
            self._watch.join()

    @property
    def growth(self) -> list[float]:
        return [most - before for most, before in zip(self._most, self._before, strict=True)]


@pytest.mark.parametrize("order", ["model first", "file first"])
def test_a_large_file_is_passed_on_without_being_held(gateway: StartedGateway, order: str) -> None:
    ready = gateway.ready
    first, last = (MODEL, b"") if order == "model first" else (b"", MODEL)
    length = len(MODEL + FILE_HEAD + FILE_END + FORM_END) + LARGE_BYTES
    expected = f"large.wav: {LARGE_BYTES} bytes, sha256 {sha256(LARGE_BYTES)}"
    for warm_up in (True, False):  # the first meets code that was never run
        memory = Memory([*ready.pids["api"], *ready.pids["worker"]])
        began = time.monotonic()
        with memory.watched(), Upload(ready, length=length) as upload:
            upload.send(first + FILE_HEAD)
            for block in blocks(LARGE_BYTES):
                upload.send(block)
            upload.send(FILE_END + last + FORM_END)
            status, body = upload.answer()
        seconds = time.monotonic() - began
        print(f"\n{order}: {seconds:.1f} s, MiB grown {[f'{g:.1f}' for g in memory.growth]}")
        assert (status, expected in body.decode()) == (200, True), body
        if not warm_up:
            assert max(memory.growth) < GROWTH_MIB
    until_still(ready)


def test_the_provider_hears_the_first_bytes_before_the_client_has_sent_the_last(
    gateway: StartedGateway,
) -> None:
    books = Books(gateway.ready)
    with Upload(gateway.ready) as upload:
        upload.send(MODEL + FILE_HEAD)
        upload.send(BLOCK)
        until(lambda: books.running_calls() == 1, WAIT_SECONDS)
        upload.send(BLOCK + FILE_END + field("response_format", "text") + FORM_END)
        status, body = upload.answer()
    assert status == 200
    assert body.decode() == f"large.wav: {2 * MIB} bytes, sha256 {sha256(2 * MIB)}\n"


def test_a_client_that_leaves_in_the_middle_of_its_file_ends_the_call(
    gateway: StartedGateway,
) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    with Upload(gateway.ready) as upload:
        upload.send(MODEL + FILE_HEAD)
        upload.send(BLOCK)
        until(lambda: books.running_calls() == 1, WAIT_SECONDS)
        upload.leave()
    until_still(gateway.ready)
    (call,), (row,) = books.calls(since), books.rows(since)
    assert (call.status, row.status) == ("aborted", "cancelled")


def test_a_client_that_leaves_while_the_provider_is_behind_is_noticed(
    gateway: StartedGateway,
) -> None:
    books = Books(gateway.ready)
    pid = gateway.ready.pids["simulator"][0]
    os.kill(pid, signal.SIGSTOP)
    try:
        with Upload(gateway.ready, timeout=2) as upload:
            upload.send(MODEL + FILE_HEAD)
            until(lambda: not send_some(upload), WAIT_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    until_still(gateway.ready)
    assert books.running_calls() == 0


def test_what_is_for_the_gateway_must_stand_before_a_large_file(gateway: StartedGateway) -> None:
    with Upload(gateway.ready) as upload:
        upload.send(MODEL + FILE_HEAD + BLOCK + FILE_END)
        upload.send(field("ollm::dryrun", "true") + FORM_END)
        status, body = upload.answer()
    assert (status, b"must stand before the file" in body) == (400, True), body
    until_still(gateway.ready)


@pytest.mark.parametrize("cut", [MODEL + FILE_HEAD + b"hello", MODEL + FILE_HEAD + BLOCK])
def test_a_form_that_was_cut_is_refused_and_never_answered(
    gateway: StartedGateway, cut: bytes
) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    with Upload(gateway.ready) as upload:
        upload.send(cut)
        status, body = upload.answer()
    assert status == 400
    assert b"invalid_multipart" in body
    until_still(gateway.ready)
    assert [call.status for call in books.calls(since)] in ([], ["aborted"])
    assert len(books.calls(since)) <= len(books.rows(since))


def test_a_file_over_the_limit_is_refused_while_it_comes(gateway: StartedGateway) -> None:
    with Upload(gateway.ready) as upload:
        upload.send(MODEL + FILE_HEAD)
        for _ in range(101):
            upload.send(BLOCK)
        status, body = upload.answer()
    assert (status, b"request_too_large" in body) == (413, True), body
    until_still(gateway.ready)


def test_a_worker_that_dies_in_the_middle_ends_the_request_once(gateway: StartedGateway) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    with Upload(gateway.ready) as upload:
        upload.send(MODEL + FILE_HEAD)
        upload.send(BLOCK)
        until(lambda: books.running_calls() == 1, WAIT_SECONDS)
        for pid in gateway.ready.pids["worker"]:
            os.kill(pid, signal.SIGKILL)
        status, body = upload.early_answer()
    assert (status, b"stream_interrupted" in body) == (502, True), body
    until_still(gateway.ready)
    (row,) = books.rows(since)
    assert row.status == "lost"


@pytest.mark.parametrize("order", ["model first", "file first"])
def test_a_file_survives_a_restart_of_the_queue(gateway: StartedGateway, order: str) -> None:
    ready, books = gateway.ready, Books(gateway.ready)
    since, pid = books.mark(), ready.pids["valkey"][0]
    first, last = (MODEL, b"") if order == "model first" else (b"", MODEL)
    with Upload(ready) as upload:
        upload.send(first + FILE_HEAD)
        upload.send(BLOCK)
        os.kill(pid, signal.SIGKILL)
        for _ in range(9):
            upload.send(BLOCK)
        upload.send(FILE_END + last + FORM_END)
        status, body = upload.answer()
    until(lambda: gateway.ready.pids["valkey"] != [pid], WAIT_SECONDS)
    until_still(ready)
    assert (status, sha256(10 * MIB) in body.decode()) == (200, True), body
    verdict = books.reconcile(since)
    assert verdict.is_clean, verdict
    assert verdict.statuses == {"completed": 1}


def test_wrong_forms_are_refused_before_anything_is_enqueued(gateway: StartedGateway) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    good: dict[str, Part] = {"model": (None, "sim_transcribe"), "file": ("a.wav", b"hello")}
    wrong: list[tuple[dict[str, Part], str]] = [
        ({"model": good["model"]}, "file"),
        ({"file": good["file"]}, "model"),
        ({**good, "file": ("a.wav", b"")}, "file"),
        ({**good, "file": (None, "text")}, "file"),
        ({**good, "other": ("b.wav", b"x")}, "other"),
        ({**good, "response_format": (None, "mp3")}, "response_format"),
        ({**good, "temperature": (None, "warm")}, "temperature"),
        ({**good, "stream": (None, "true")}, "stream"),
        ({**good, "ollm::tags": (None, "{")}, "ollm::tags"),
        ({**good, "ollm::dryrun": (None, "maybe")}, "ollm::dryrun"),
    ]
    with httpx.Client(base_url=gateway.ready.base_url) as client:
        for files, param in wrong:
            answer = client.post(
                PATH, files=files, headers={"authorization": f"Bearer {gateway.ready.api_key}"}
            )
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert books.calls(since) == []
    until_still(gateway.ready)
