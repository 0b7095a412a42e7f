"""Uploads through a real Valkey: the scripts' promises, and a worker that sends the file on."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from shared.job import JobHeader
from shared.money import ZERO
from shared.reply import Kind
from shared.upload import CHUNK_BYTES, End, Form, binding, encode_end, encode_form
from shared.valkey.lane import Claim
from shared.valkey.uploads import Chunk, UploadReader, UploadWriter
from tests.integration.provider import Call, fails, scripted
from tests.integration.queue import INBOX, LIMITS, Queue, a_header
from tests.integration.worker import SEAL, Asker, Replies, a_worker, eventually, one_model

ROOM = 1 << 30
FORM = Form(fields=(("language", "de"),), file_name="a.wav", content_type="audio/wav")


def writer(queue: Queue, request_id: str) -> UploadWriter:
    return UploadWriter(queue.keys, request_id)


async def append(
    queue: Queue, request_id: str, number: int, sealed: bytes = b"12345", **bounds: int
) -> str:
    given = {"most_waiting": ROOM, "most_sealed": ROOM, **bounds}
    chunk = Chunk(number, sealed, is_end=False)
    return await writer(queue, request_id).append(queue.client, chunk, **given)


async def sealed_bytes(queue: Queue) -> int:
    return int(await queue.client.call(b"GET", queue.keys.sealed_bytes) or 0)


async def waiting(queue: Queue, request_id: str) -> int:
    return int(await queue.client.call(b"XLEN", queue.keys.upload(request_id)))


async def attempted(queue: Queue) -> Claim:
    """A job whose attempt is recorded: the worker holds the token."""
    header = a_header()
    await queue.admit(header)
    (claim,) = await queue.claimed()
    outcome = await queue.lanes().attempt(
        queue.client, claim, reply_to=INBOX, row_id="row-1", row=b"row", ended=()
    )
    assert outcome == b"ok"
    return claim


# ---- the scripts


async def test_a_chunk_asked_for_again_is_let_in_once(queue: Queue) -> None:
    assert await append(queue, "r", 1) == "ok"
    assert await append(queue, "r", 1) == "ok"
    assert await append(queue, "r", 2) == "ok"
    assert (await waiting(queue, "r"), await sealed_bytes(queue)) == (2, 10)


async def test_no_more_waits_than_the_window_holds_but_one_chunk_always_may(queue: Queue) -> None:
    assert await append(queue, "r", 1, most_waiting=1) == "ok"
    assert await append(queue, "r", 2, most_waiting=9) == "full"
    assert await append(queue, "r", 2, most_waiting=10) == "ok"


async def test_all_that_is_sealed_has_one_bound(queue: Queue) -> None:
    await queue.admit()  # its body is six bytes
    assert await append(queue, "r", 1, most_sealed=10) == "memory_full"
    assert await append(queue, "r", 1, most_sealed=11) == "ok"
    assert await append(queue, "other", 1, most_sealed=11) == "memory_full"


async def test_what_is_dropped_is_given_back_once(queue: Queue) -> None:
    await append(queue, "r", 1)
    await append(queue, "other", 1)
    for _ in range(2):
        await writer(queue, "r").drop(queue.client)
    assert await sealed_bytes(queue) == 5
    assert await queue.client.call(b"EXISTS", queue.keys.upload("r")) == 0
    assert await queue.client.call(b"HKEYS", queue.keys.uploads) == [b"other"]


async def test_a_chunk_that_is_taken_makes_the_job_spoken(valkey_db: str, queue: Queue) -> None:
    claim = await attempted(queue)
    await append(queue, claim.request_id, 1)
    before = await sealed_bytes(queue)
    reader = UploadReader.connect(valkey_db, "w")
    chunk = await reader.next(claim, 0)
    assert chunk == Chunk(1, b"12345", is_end=False)
    for _ in range(2):  # taking it may be repeated
        assert await reader.take(claim, chunk) == "ok"
    spoke = await queue.client.call(b"HGET", queue.keys.job(claim.request_id), b"spoke")
    assert (spoke, await waiting(queue, claim.request_id)) == (b"1", 0)
    assert await sealed_bytes(queue) == before - 5
    await reader.close()


async def test_only_the_holder_of_the_token_takes_a_chunk(valkey_db: str, queue: Queue) -> None:
    claim = await attempted(queue)
    await append(queue, claim.request_id, 1)
    reader = UploadReader.connect(valkey_db, "w")
    chunk = await reader.next(claim, 0)
    other = Claim(**{**{n: getattr(claim, n) for n in claim.__struct_fields__}, "token": b"2:x"})
    assert await reader.take(other, chunk) == "fenced"
    assert await waiting(queue, claim.request_id) == 1
    await queue.client.call(b"DEL", queue.keys.job(claim.request_id))
    assert await reader.take(claim, chunk) == "gone"
    await reader.close()


async def test_a_reader_waits_for_what_has_not_come(valkey_db: str, queue: Queue) -> None:
    claim = await attempted(queue)
    reader = UploadReader.connect(valkey_db, "w")
    next_one = asyncio.create_task(reader.next(claim, 0))
    await asyncio.sleep(0.05)
    assert not next_one.done()
    await append(queue, claim.request_id, 1)
    assert (await asyncio.wait_for(next_one, 5)).number == 1
    await reader.close()


async def test_a_chunk_without_the_one_before_it_is_refused(queue: Queue) -> None:
    assert await append(queue, "r", 2) == "gone"
    assert await waiting(queue, "r") == 0


# ---- a worker that sends the file on


class Sender:
    """Uploads as an API process does, chunk by chunk, when the test says so."""

    def __init__(self, queue: Queue, asker: Asker, config_hash: str, **header: object) -> None:
        self.queue = queue
        self.asker = asker
        self.header: JobHeader = a_header(
            model="m",
            asked_model="m",
            endpoint="audio.transcriptions",
            config_hash=config_hash,
            **header,
        )
        self._number = 0

    async def admit(self) -> None:
        bound_to = b"job:" + self.header.request_id.encode()
        sealed = SEAL.seal(encode_form(FORM), bound_to)
        await self.queue.admission.admit(self.queue.client, self.header, sealed, LIMITS)

    async def send(self, data: bytes, *, is_end: bool = False, at: int | None = None) -> None:
        self._number += 1
        bound_to = binding(self.header.request_id, at or self._number, is_end=is_end)
        chunk = Chunk(self._number, SEAL.seal(data, bound_to), is_end)
        outcome = await writer(self.queue, self.header.request_id).append(
            self.queue.client, chunk, most_waiting=ROOM, most_sealed=ROOM
        )
        assert outcome == "ok"

    async def end(self, *fields: tuple[str, str]) -> None:
        await self.send(encode_end(End(fields)), is_end=True)

    async def ended(self) -> Replies:
        return await self.asker.ended(self.header)


def hears(seen: list[bytes], answer: object = None, status: int = 200) -> Any:
    async def script(call: Call) -> None:
        seen.append(call.body)
        await call.respond({"text": "heard"} if answer is None else answer, status)

    return script


async def test_the_provider_gets_the_file_and_all_fields(valkey_db: str, queue: Queue) -> None:
    seen: list[bytes] = []
    async with scripted(hears(seen)) as provider:
        catalog = one_model(provider.url)
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await sender.send(b"hello ")
            await asyncio.sleep(0.05)
            await sender.send(b"world")
            await sender.end(("prompt", "later"))
            replies = await sender.ended()
            (row,) = await sender.asker.rows(1)
    assert replies.answer.body == b'{"text": "heard"}'
    (body,) = seen
    for part in (b"hello world\r\n", b'name="language"\r\n\r\nde', b'name="prompt"\r\n\r\nlater'):
        assert part in body
    assert body.index(b'name="model"') < body.index(b"hello") < body.index(b"later")
    assert (row.status, row.endpoint, row.usage_source) == (
        "completed",
        "audio.transcriptions",
        "estimated",
    )


async def test_a_call_that_fails_before_a_chunk_was_taken_is_repeated(
    valkey_db: str, queue: Queue
) -> None:
    seen: list[bytes] = []
    catalog_of = {"retries": {"attempts": 2, "backoff_seconds": 0}}
    busy = scripted(fails(500), reads_body=False)
    async with busy as refusing, scripted(hears(seen)) as provider:
        catalog = one_model(refusing.url, provider.url, **catalog_of)
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await eventually(lambda: len(refusing.calls) == 2)
            await sender.send(b"hello")
            await sender.end()
            replies = await sender.ended()
            rows = await sender.asker.rows(3)
    assert replies.answer.body == b'{"text": "heard"}'
    assert [row.status for row in rows] == ["failed", "failed", "completed"]


async def test_a_call_that_fails_after_the_first_chunk_is_not_repeated(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500)) as provider, scripted(fails(500)) as other:
        catalog = one_model(provider.url, other.url, retries={"attempts": 2, "backoff_seconds": 0})
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await sender.send(b"hello")
            await sender.end()
            error = (await sender.ended()).error
            (row,) = await sender.asker.rows(1)
    assert (error.status, row.status, row.cost_usd) == (502, "failed", ZERO)
    assert (len(provider.calls), other.calls) == (1, [])


async def test_a_chunk_in_another_place_is_never_sent_on(valkey_db: str, queue: Queue) -> None:
    seen: list[bytes] = []
    async with scripted(hears(seen)) as provider:
        catalog = one_model(provider.url)
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await sender.send(b"hello")
            await sender.send(b"again", at=1)
            await sender.end()
            replies = await sender.ended()
    assert replies.error.status == 500
    assert seen == []


async def test_a_worker_that_died_with_a_chunk_taken_is_followed_by_no_second_call(
    valkey_db: str, queue: Queue
) -> None:
    seen: list[bytes] = []
    async with scripted(hears(seen)) as provider:
        catalog = one_model(provider.url)
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog, lease_seconds=0.5) as first:
            await sender.admit()
            await sender.send(bytes(CHUNK_BYTES))
            while await waiting(queue, sender.header.request_id):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await first.killed()
        async with a_worker(valkey_db, catalog, lease_seconds=0.5):
            await sender.send(b"rest")
            await sender.end()
            replies = await sender.ended()
            (row,) = await sender.asker.rows(1)
    assert replies.kinds == [Kind.FAILED]
    assert replies.error.code == "stream_interrupted"
    assert (row.status, row.cost_usd) == ("lost", ZERO)
    assert seen == []


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"error": {"message": "no"}}, 200, "upstream_protocol_error"),
        ({"words": 1}, 200, "upstream_protocol_error"),
        (b"<html>", 200, "upstream_protocol_error"),
        ({"error": {"message": "too long"}}, 400, "invalid_value"),
    ],
    ids=repr,
)
async def test_an_answer_that_is_none_is_told_as_what_it_is(
    valkey_db: str, queue: Queue, answer: object, status: int, code: str
) -> None:
    seen: list[bytes] = []
    async with scripted(hears(seen, answer, status)) as provider:
        catalog = one_model(provider.url)
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await sender.send(b"hello")
            await sender.end()
            error = (await sender.ended()).error
            (row,) = await sender.asker.rows(1)
    assert (error.code, row.status) == (code, "failed")


async def test_a_provider_is_not_blamed_for_a_client_that_is_slow(
    valkey_db: str, queue: Queue
) -> None:
    """Neither for giving up itself, nor when the job's time is over."""

    async def gives_up(call: Call) -> None:
        await call.respond({"error": {"message": "too slow"}}, 408)

    seen: list[bytes] = []
    async with (
        scripted(gives_up, gives_up, hears(seen), reads_body=False) as provider,
    ):
        catalog = one_model(provider.url, breaker={"failures": 1, "open_seconds": 60})
        async with a_worker(valkey_db, catalog):
            for seconds in (600.0, 0.5):
                slow = Sender(queue, Asker(queue, catalog), catalog.hash, total_seconds=seconds)
                await slow.admit()
                assert (await slow.ended()).error.status == 504
            sender = Sender(queue, Asker(queue, catalog), catalog.hash)
            await sender.send(b"hello")
            await sender.end()
            await sender.admit()
            error = (await sender.ended()).error
    assert error.code != "provider_unavailable"


@pytest.mark.parametrize("kind", ["text", "srt", "vtt", "json"])
async def test_what_a_provider_does_not_count_is_estimated_from_the_file(
    valkey_db: str, queue: Queue, kind: str
) -> None:
    seen: list[bytes] = []
    answer: object = {"text": "x" * 80} if kind == "json" else b"x" * 80
    async with scripted(hears(seen, answer)) as provider:
        catalog = one_model(provider.url)
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await sender.send(bytes(64_000))
            await sender.end(("response_format", kind))
            await sender.ended()
            (row,) = await sender.asker.rows(1)
    assert row.usage_source == "estimated"
    assert (row.usage.input_tokens, row.usage.output_tokens, int(row.usage.seconds)) == (20, 10, 2)
    assert row.cost_usd == Decimal("0.000040000")
