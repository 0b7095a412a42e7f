"""What went over the wires, as digests: of the exact bytes, whole or in pieces."""

import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from typing_extensions import override

from shared.run import pack
from shared.transcript import Digest, decode_transcript, encode_transcript
from tests.spend_rows import spend_row
from tests.unit.workers.jobs import a_header
from workers.inference.digests import (
    Digests,
    Running,
    asked_by_client,
    digest_of,
    of_row,
)
from workers.providers.http.prepared import Endpoint

ASKED = digest_of(b"asked")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_request(body: bytes) -> httpx.Request:
    endpoint = Endpoint(httpx.URL("http://provider.invalid"), [])
    return endpoint.request(body, row_id="r1", timeouts={})


def test_pieces_have_the_digest_of_the_whole() -> None:
    running = Running()
    for piece in (b"data: 1\n\n", b"", b"data: [DONE]\n\n"):
        running.add(piece)
    assert running.digest() == digest_of(b"data: 1\n\ndata: [DONE]\n\n")
    assert running.digest() == Digest(sha(b"data: 1\n\ndata: [DONE]\n\n"), 23)


def test_what_nobody_has_seen_has_no_digest() -> None:
    assert Running().digest() == Digest("", 0)


def test_an_uploads_body_is_not_what_its_client_sent() -> None:
    assert asked_by_client(a_header(), b"{}") == digest_of(b"{}")
    assert asked_by_client(a_header(endpoint="audio.transcriptions"), b"form") == Digest()


def test_a_transcript_says_what_the_row_and_the_wires_said() -> None:
    digests = Digests(ASKED, "near")
    digests.forward(a_request(b"sent"))
    digests.whole(b"answer", b"body")
    row = spend_row(1)
    told = digests.transcript(row, attestation="require", upstream_id="chat-1", cause="unused")
    assert told.complete
    assert told.cause == ""
    assert told.client_request == ASKED
    assert told.forwarded_request == digest_of(b"sent")
    assert told.upstream_response == digest_of(b"answer")
    assert told.client_response == digest_of(b"body")
    assert (told.receipt_id, told.request_id) == (row.row_id, row.request_id)
    assert (told.model, told.provider, told.provider_type) == (row.model, row.provider, "near")
    assert (told.tier, told.streamed, told.attestation) == (row.tier, row.streamed, "require")
    assert told.ended_at == row.ended_at.timestamp()
    assert (told.upstream_id, told.reserialised_response, told.zdr) == ("chat-1", "", None)
    assert decode_transcript(encode_transcript(told)) == told


def test_a_stream_is_hashed_as_its_client_gets_it() -> None:
    digests = Digests(ASKED, "near")
    text = pack(b'data: {"choices":', [b"1}", b"2}"]) + b"data: [DONE]\n\n"
    digests.stream().heard.append(text)
    told = digests.transcript(spend_row(), attestation="record", upstream_id="", cause="cut")
    whole = b'data: {"choices":1}\n\ndata: {"choices":2}\n\ndata: [DONE]\n\n'
    assert told.client_response == digest_of(whole)
    assert (told.complete, told.cause) == (False, "cut")


def test_there_is_something_to_tell_once_a_client_saw_a_part_or_it_was_read_to_its_end() -> None:
    digests = Digests(ASKED, "near")
    streamed = digests.stream()
    streamed.read.append(b"data: 1\n\n")
    streamed.heard.append(b"")
    heard, unheard = Digests(ASKED, "near"), Digests(ASKED, "near")
    heard.stream().heard.append(b"data: 1\n\n")
    unheard.complete = True
    assert [one.is_told for one in (digests, heard, unheard)] == [False, True, True]


def test_an_answer_that_goes_to_nobody_has_no_client_bytes() -> None:
    digests = Digests(ASKED, "near")
    digests.whole(b"answer", None)
    told = digests.transcript(spend_row(), attestation="record", upstream_id="", cause="")
    assert (told.complete, told.client_response) == (True, Digest())


def test_a_providers_id_is_cut() -> None:
    digests = Digests(ASKED, "near")
    told = digests.transcript(spend_row(), attestation="record", upstream_id="x" * 10_000, cause="")
    assert len(told.upstream_id) == 256


@pytest.mark.parametrize(
    "answer",
    [
        b'{"id":"a","n":[1,2.50,-0.0,1e5],"t":null,"f":true}',
        '{"é":"\N{GRINNING FACE}\\u0041\\/","x":{}}'.encode(),
        b'{"a":1,"a":2}',
        b'{"big":123456789012345678}',
    ],
)
def test_a_whole_answer_of_phala_is_hashed_as_pythons_json_writes_it_too(answer: bytes) -> None:
    digests = Digests(ASKED, "phala")
    digests.whole(answer, answer)
    assert digests.reserialised == sha(json.dumps(json.loads(answer)).encode())


@pytest.mark.parametrize("answer", [b"no json", b"[" * 100_000, b'"\xff"'])
def test_what_is_no_json_is_not_reserialised(answer: bytes) -> None:
    digests = Digests(ASKED, "phala")
    digests.whole(answer, answer)
    assert digests.reserialised == ""


class Parts(httpx.AsyncByteStream):
    """A body that comes bit by bit, and knows whether it was left properly."""

    def __init__(self) -> None:
        self.was_closed = False

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for part in (b"one", b"two", b"three"):
                yield part
        finally:
            self.was_closed = True


async def test_a_body_that_comes_bit_by_bit_is_hashed_on_its_way() -> None:
    digests = Digests(Digest(), "near")
    request = httpx.Request("POST", "http://provider.invalid", stream=Parts())
    digests.forward(request)
    sent = [part async for part in request.stream]  # type: ignore[union-attr]
    told = digests.transcript(spend_row(), attestation="record", upstream_id="", cause="")
    assert sent == [b"one", b"two", b"three"]
    assert told.forwarded_request == digest_of(b"onetwothree")


async def test_a_body_that_is_left_early_ends_at_once() -> None:
    parts = Parts()
    digests = Digests(Digest(), "near")
    request = httpx.Request("POST", "http://provider.invalid", stream=parts)
    digests.forward(request)
    reading = aiter(request.stream)  # type: ignore[arg-type]
    assert await anext(reading) == b"one"
    await reading.aclose()  # type: ignore[attr-defined]
    assert parts.was_closed


def test_a_row_alone_makes_a_transcript_without_digests() -> None:
    told = of_row(spend_row(), provider_type="", attestation="record")
    assert not told.complete
    assert {told.client_request, told.upstream_response} == {Digest()}
    assert len(msgspec.to_builtins(told)) == len(told.__struct_fields__)
