"""Transcripts of attested calls: the digests of exactly what a scripted provider sent and got."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.reply import Kind
from shared.transcript import Digest, Transcript
from tests.catalogs import a_catalog
from tests.integration.certificates import a_server
from tests.integration.provider import (
    Call,
    Script,
    ScriptedProvider,
    a_chunk,
    a_completion,
    answers,
    fails,
    keeps_silent,
    scripted,
    speaks_and_breaks,
    speaks_and_stops,
)
from tests.integration.queue import Queue
from tests.integration.test_uploads import Sender
from tests.integration.worker import (
    PATIENT,
    PRICE,
    Asker,
    StartedWorker,
    a_worker,
    eventually,
)

RECORD: dict[str, Any] = {"attestation": "record"}
STREAM: dict[str, Any] = {**RECORD, "stream": True}
DRAINED: dict[str, Any] = {"drain_on_disconnect": True, "drain_seconds": 5.0}
EVENTS = [a_chunk("hel"), a_chunk("lo"), a_chunk("", finish_reason="stop")]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def a_tee_catalog(
    *providers: ScriptedProvider, kind: str = "near", tier: str = "TEE", **attestation: Any
) -> Catalog:
    """The model `m`."""
    named = {
        f"p{at}": {"type": kind, "base_url": one.url, **PATIENT} for at, one in enumerate(providers)
    }
    model = {"tier": tier, "providers": list(named), "price": PRICE}
    return a_catalog(named, {"m": model}, attestation=attestation)


def sse(*documents: object) -> bytes:
    texts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents]
    return b"".join(b"data: " + text + b"\n\n" for text in texts)


WHOLE_STREAM = sse(*EVENTS, {**a_chunk(""), "choices": [], "usage": USAGE}, b"[DONE]")


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def streams(*pieces: bytes, waits: float = 0.0) -> Script:
    """The very bytes of a body, each piece in an HTTP chunk of its own."""

    async def script(call: Call) -> None:
        await call.open_stream()
        for piece in pieces:
            await call.send(chunked(piece))
            await asyncio.sleep(waits)
        await call.send(b"0\r\n\r\n")

    return script


def gated(*pieces: bytes) -> tuple[Script, asyncio.Event]:
    """A stream that stops before its last piece until it is let go."""
    go_on = asyncio.Event()

    async def script(call: Call) -> None:
        *first, last = pieces
        await call.open_stream()
        for piece in first:
            await call.send(chunked(piece))
        await go_on.wait()
        await call.send(chunked(last) + b"0\r\n\r\n")

    return script, go_on


async def leaves(queue: Queue, request_id: str) -> None:
    outcome = await queue.admission.cancel(queue.client, request_id, "default")
    assert outcome == "told"


# ---- what was hashed


async def test_a_whole_answer_has_the_digests_of_all_four_bodies(
    valkey_db: str, queue: Queue
) -> None:
    answer = json.dumps(a_completion("grüß dich"), ensure_ascii=False).encode()

    async def script(call: Call) -> None:
        await call.respond(answer, headers="X-Receipt-Id: rcpt-1\r\n")

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**RECORD, key_id="key-1")
            replies = await asker.ended(job)
        (row,) = await asker.rows()
        (told,) = await asker.transcripts()
    (call,) = provider.calls
    assert told.client_request == digest(asker.bodies[job.request_id])
    assert told.forwarded_request == digest(call.body)
    assert told.upstream_response == digest(answer)
    assert told.client_response == digest(replies.answer.body)
    assert (told.complete, told.cause, told.streamed) == (True, "", False)
    assert (told.receipt_id, told.request_id) == (row.row_id, job.request_id)
    assert (told.upstream_id, told.upstream_receipt_id) == ("gen-1", "rcpt-1")
    assert (told.provider, told.provider_type, told.tier) == ("p0", "near", "TEE")
    assert (told.attestation, told.key_id) == ("record", "key-1")
    assert job.admitted_at <= told.started_at <= told.ended_at
    assert (told.tls_host, told.tls_spki) == ("", "")
    await asker.at_rest()


@pytest.mark.parametrize(
    "pieces",
    [
        [WHOLE_STREAM],
        [WHOLE_STREAM[at : at + 7] for at in range(0, len(WHOLE_STREAM), 7)],
        [b": a comment\n\n", WHOLE_STREAM, b": after\n\n"],
        [WHOLE_STREAM.replace(b"\n", b"\r\n")],
        [WHOLE_STREAM, b"\n"],
    ],
    ids=["at once", "in pieces", "with comments", "with CRLF", "with more after the end"],
)
async def test_a_stream_is_hashed_whole_as_it_came_and_as_it_went_on(
    valkey_db: str, queue: Queue, pieces: list[bytes]
) -> None:
    async with scripted(streams(*pieces, waits=0.002)) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**STREAM, include_usage=True)
            replies = await asker.ended(job)
        (told,) = await asker.transcripts()
    assert replies.text == "hello"
    assert told.upstream_response == digest(b"".join(pieces))
    assert told.client_response == digest(replies.bytes)
    assert replies.bytes.endswith(b"data: [DONE]\n\n")
    assert (told.complete, told.streamed, told.upstream_id) == (True, True, "gen-1")


async def test_a_body_that_does_not_end_is_waited_for_shortly(valkey_db: str, queue: Queue) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.send(chunked(WHOLE_STREAM))
        await call.left.wait()

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(**STREAM))
        (told,) = await asker.transcripts()
    assert replies.kinds[-1] == Kind.END
    assert (told.complete, told.upstream_response) == (True, digest(WHOLE_STREAM))


async def test_without_a_policy_nothing_is_told_and_the_end_is_not_waited_for(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask())
            await asker.ended(await asker.ask(stream=True))
    assert await asker.transcripts() == []


async def test_phalas_whole_answers_are_hashed_as_pythons_json_writes_them(
    valkey_db: str, queue: Queue
) -> None:
    answer = json.dumps(
        a_completion("grüß dich"), ensure_ascii=False, separators=(",", ":")
    ).encode()

    async def script(call: Call) -> None:
        await (streams(WHOLE_STREAM)(call) if call.document.get("stream") else call.respond(answer))

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider, kind="phala")
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask(**RECORD))
            await asker.ended(await asker.ask(**STREAM))
        whole, stream = await asker.transcripts()
    written = json.dumps(json.loads(answer)).encode()
    assert whole.upstream_response == digest(answer)
    assert whole.reserialised_response == digest(written).sha256 != digest(answer).sha256
    assert stream.reserialised_response == ""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_zero_retention_call_tells_what_was_asked_and_what_was_said(
    valkey_db: str, queue: Queue, stream: bool
) -> None:
    routing = {"finalProvider": "x", "planningReasoning": "two planned", "attempts": [{}, {}]}
    said = {"gateway": {"routing": routing, "cost": "0.01", "generationId": "gen_7"}}
    whole = a_completion()
    whole["choices"][0]["message"]["provider_metadata"] = said  # type: ignore[index]
    last = a_chunk("lo", finish_reason="stop")
    last["choices"][0]["delta"]["provider_metadata"] = said  # type: ignore[index]

    async def script(call: Call) -> None:
        if call.document.get("stream"):
            await streams(sse(a_chunk("hel"), last, b"[DONE]"))(call)
        else:
            await call.respond(whole)

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider, kind="vercel", tier="ZDR")
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask(**RECORD, stream=stream))
        (told,) = await asker.transcripts()
    assert told.zdr is not None
    assert (told.zdr.zero_data_retention, told.zdr.disallow_prompt_training) == (True, True)
    assert (told.zdr.generation_id, told.zdr.final_provider) == ("gen_7", "x")
    assert (told.zdr.attempts, told.zdr.planning, told.zdr.cost) == (2, "two planned", "0.01")
    assert told.tier == "ZDR"


async def test_over_tls_the_peers_name_and_key_are_told(
    valkey_db: str, queue: Queue, tmp_path: Path
) -> None:
    tls, trusted, key = a_server(tmp_path / "server.pem")
    async with scripted(answers, tls=tls) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog, trusted=trusted):
            await asker.ended(await asker.ask(**RECORD))
            await asker.ended(await asker.ask(**STREAM))
        told = await asker.transcripts()
    assert [(one.tls_host, one.tls_spki) for one in told] == [("localhost", key)] * 2


async def test_a_form_is_hashed_as_it_leaves(valkey_db: str, queue: Queue) -> None:
    async def script(call: Call) -> None:
        await call.respond({"text": "hello", "id": "t-1"})

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        upload = Sender(queue, asker, catalog.hash, attestation="record")
        async with a_worker(valkey_db, catalog):
            await upload.admit()
            await upload.send(b"RIFF" * 100)
            await upload.end()
            replies = await asker.ended(upload.header)
        (told,) = await asker.transcripts()
    assert told.forwarded_request == digest(provider.calls[0].body)
    assert told.client_response == digest(replies.answer.body)
    # What the client sent was a form of its own, which nobody has seen as a whole.
    assert (told.client_request, told.upstream_id) == (Digest(), "t-1")


async def test_embeddings_are_told_too(valkey_db: str, queue: Queue) -> None:
    vectors = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "id": "emb-1"}

    async def script(call: Call) -> None:
        await call.respond(vectors)

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**RECORD, endpoint="embeddings", body={"input": "x"})
            replies = await asker.ended(job)
        (told,) = await asker.transcripts()
    assert told.upstream_response == digest(json.dumps(vectors).encode())
    assert told.client_response == digest(replies.answer.body)
    assert (told.endpoint, told.upstream_id) == ("embeddings", "emb-1")


# ---- what is told, and what is not


async def test_only_the_attempt_that_answered_is_told(valkey_db: str, queue: Queue) -> None:
    async with scripted(fails(500)) as bad, scripted(answers) as good:
        catalog = a_tee_catalog(bad, good)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask(**RECORD))
        rows = await asker.rows()
        (told,) = await asker.transcripts()
    assert told.receipt_id == next(row.row_id for row in rows if row.status == "completed")


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (speaks_and_breaks, "upstream_error"),
        (streams(sse(a_chunk("hello"))), "upstream_protocol_error"),
        (streams(sse(a_chunk("hello"), {"error": {"message": "no"}})), "upstream_protocol_error"),
        (streams(sse(a_chunk("hello"), b"[DONE]")), "upstream_protocol_error"),
    ],
    ids=["cut", "ended early", "with an error", "without a finish reason"],
)
async def test_a_stream_that_was_cut_is_told_as_far_as_its_client_saw_it(
    valkey_db: str, queue: Queue, script: Script, cause: str
) -> None:
    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(**STREAM))
        (told,) = await asker.transcripts()
    assert replies.kinds[-1] == Kind.FAILED
    assert (told.complete, told.cause) == (False, cause)
    assert told.client_response == digest(replies.bytes)
    assert told.upstream_response.size > 0


async def test_what_nobody_saw_is_not_told(valkey_db: str, queue: Queue) -> None:
    async with scripted(fails(500), keeps_silent) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask(**STREAM))
            left = await asker.ask(**STREAM)
            await eventually(lambda: len(provider.calls) == 2)
            await leaves(queue, left.request_id)
            await asker.ended(left)
    assert await asker.transcripts() == []


async def test_a_dry_run_is_not_told(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask(**RECORD, dryrun=True))
    assert await asker.transcripts() == []


async def test_an_answer_from_the_cache_is_not_told_again(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            first = await asker.ended(await asker.ask(**RECORD, cache="on"))
            await eventually(lambda: kept(worker) == 1)
            second = await asker.ended(await asker.ask(**RECORD, cache="on"))
        assert len(await asker.transcripts()) == 1
    assert [one.answer.headers for one in (first, second)] == [
        {"x-ollm-cache": "miss"}, {"x-ollm-cache": "hit"},
    ]  # fmt: skip


def kept(worker: StartedWorker) -> float:
    return worker.metrics.cache_puts.labels("stored").value


async def test_of_a_panel_every_call_that_was_completed_is_told(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as provider:
        providers = {"p0": {"type": "near", "base_url": provider.url, **PATIENT}}
        names = ("a", "b", "f")
        models = {one: {"tier": "TEE", "providers": ["p0"], "price": PRICE} for one in names}
        variants: dict[str, Any] = {one: {"model": one, "weight": 0} for one in ("a", "b")}
        variants["mix"] = {
            "type": "mixture_of_n", "candidates": ["a", "b"], "fuser": {"model": "f"},
        }  # fmt: skip
        catalog = a_catalog(providers, models, functions={"fn": {"variants": variants}})
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask("a", **STREAM, function="fn", variant="mix")
            replies = await asker.ended(job)
        told = {one.model: one for one in await asker.transcripts()}
    assert sorted(told) == ["a", "b", "f"]
    assert all(one.complete for one in told.values())
    assert told["f"].client_response == digest(replies.bytes)
    assert {told["a"].client_response, told["b"].client_response} == {Digest()}
    assert {one.client_request for one in told.values()} == {digest(asker.bodies[job.request_id])}


# ---- a client that leaves


async def test_a_stream_whose_client_left_is_cut_and_told_so(valkey_db: str, queue: Queue) -> None:
    async with scripted(speaks_and_stops) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**STREAM)
            heard = (await asker.spoken(job)).bytes
            await leaves(queue, job.request_id)
            await asker.ended(job)
        (row,) = await asker.rows()
        (told,) = await asker.transcripts()
    assert (row.status, told.cause, told.complete) == ("cancelled", "client_disconnected", False)
    assert told.client_response == digest(heard)
    await asker.at_rest()


async def left_while_it_spoke(
    queue: Queue, asker: Asker, *, then: Callable[[], object] | None = None
) -> tuple[str, bytes]:
    """Its client has heard a part; the provider goes on when it is told to."""
    job = await asker.ask(**STREAM)
    heard = (await asker.spoken(job)).bytes
    await leaves(queue, job.request_id)
    await asyncio.sleep(0.1)  # a job that were not read on would have ended by now
    assert await asker.transcripts() == []
    if then is not None:
        then()
    await asker.ended(job)
    return job.request_id, heard


async def the_one_told(asker: Asker, status: str = "cancelled") -> Transcript:
    (row,) = await asker.rows(1)
    (told,) = await asker.transcripts(1)
    assert (row.status, row.billed, row.row_id) == (status, True, told.receipt_id)
    await asker.at_rest()
    return told


async def test_a_stream_that_is_read_on_is_whole_and_billed_by_its_usage(
    valkey_db: str, queue: Queue
) -> None:
    script, go_on = gated(sse(*EVENTS[:2]), WHOLE_STREAM[len(sse(*EVENTS[:2])) :])
    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider, **DRAINED)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            _, heard = await left_while_it_spoke(queue, asker, then=go_on.set)
            told = await the_one_told(asker)
        (row,) = await asker.rows()
    assert (told.complete, told.cause) == (True, "")
    assert told.upstream_response == digest(WHOLE_STREAM)
    assert told.client_response == digest(heard)
    assert (row.usage_source, row.usage.output_tokens) == ("provider", 4)
    assert row.error_code == "client_disconnected"


async def test_a_stream_is_read_on_for_a_client_that_heard_nothing_yet(
    valkey_db: str, queue: Queue
) -> None:
    script, go_on = gated(b": soon\n\n", WHOLE_STREAM)
    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider, **DRAINED)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**STREAM)
            await eventually(lambda: bool(provider.calls) and provider.calls[0].sent_bytes > 100)
            await asyncio.sleep(0.05)
            await leaves(queue, job.request_id)
            await asyncio.sleep(0.05)
            go_on.set()
            await asker.ended(job)
            told = await the_one_told(asker)
    assert (told.complete, told.client_response) == (True, Digest())
    assert told.upstream_response == digest(b": soon\n\n" + WHOLE_STREAM)


async def test_reading_on_ends_after_its_seconds(valkey_db: str, queue: Queue) -> None:
    async with scripted(speaks_and_stops) as provider:
        catalog = a_tee_catalog(provider, drain_on_disconnect=True, drain_seconds=0.3)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await left_while_it_spoke(queue, asker)
            told = await the_one_told(asker)
            async with asyncio.timeout(1):
                await provider.calls[0].left.wait()
    assert (told.complete, told.cause) == (False, "client_disconnected")


async def test_reading_on_ends_with_the_jobs_deadline(valkey_db: str, queue: Queue) -> None:
    async with scripted(speaks_and_stops) as provider:
        catalog = a_tee_catalog(provider, **DRAINED)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**STREAM, total_seconds=1.0)
            await asker.spoken(job)
            await leaves(queue, job.request_id)
            await asker.ended(job)
            told = await the_one_told(asker)
    assert (told.complete, told.cause) == (False, "client_disconnected")


async def test_reading_on_ends_with_the_worker(valkey_db: str, queue: Queue) -> None:
    async with scripted(speaks_and_stops) as provider:
        catalog = a_tee_catalog(provider, **DRAINED)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog, drain_seconds=0.1) as worker:
            job = await asker.ask(**STREAM)
            await asker.spoken(job)
            await leaves(queue, job.request_id)
            await asyncio.sleep(0.05)
            await worker.drained()
            told = await the_one_told(asker)
    assert (told.complete, told.cause) == (False, "client_disconnected")


async def test_reading_on_a_stream_that_breaks_asks_nobody_else(
    valkey_db: str, queue: Queue
) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.say("hel", "lo")
        await go_on.wait()
        call.cut()

    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider, provider, **DRAINED)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            await left_while_it_spoke(queue, asker, then=go_on.set)
            told = await the_one_told(asker, "failed")
    assert len(provider.calls) == 1
    assert (told.complete, told.cause) == (False, "upstream_error")


async def test_a_job_that_is_read_on_and_lost_is_told_by_its_taker_alone(
    valkey_db: str, queue: Queue
) -> None:
    parts = sse(*EVENTS[:2])
    script, go_on = gated(parts, WHOLE_STREAM[len(parts) :])
    async with scripted(script) as provider:
        catalog = a_tee_catalog(provider, **DRAINED)
        asker = Asker(queue, catalog)
        # The first worker's heartbeats are too slow for the second one's lease.
        async with a_worker(valkey_db, catalog) as slow:
            job = await asker.ask(**STREAM)
            await asker.spoken(job)
            await leaves(queue, job.request_id)
            async with a_worker(valkey_db, catalog, lease_seconds=0.5):
                await asker.ended(job)
                go_on.set()
                await eventually(lambda: slow.runner.held_jobs == 0)
                told = await the_one_told(asker, "lost")
    assert (told.complete, told.cause) == (False, "worker_lost")


async def test_other_tiers_are_not_read_on(valkey_db: str, queue: Queue) -> None:
    async with scripted(speaks_and_stops) as provider:
        catalog = a_tee_catalog(provider, kind="vercel", tier="ZDR", **DRAINED)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(**STREAM)
            await asker.spoken(job)
            await leaves(queue, job.request_id)
            async with asyncio.timeout(2):
                await asker.ended(job)


# ---- a worker that dies


async def test_a_stream_whose_worker_died_is_told_by_who_takes_it_over(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(speaks_and_stops) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog, lease_seconds=0.6) as worker:
            job = await asker.ask(**STREAM)
            await asker.spoken(job)
            await worker.killed()
        async with a_worker(valkey_db, catalog, lease_seconds=0.6):
            replies = await asker.ended(job)
            (row,) = await asker.rows(1)
            (told,) = await asker.transcripts(1)
    assert replies.error.code == "stream_interrupted"
    assert (told.receipt_id, told.cause) == (row.row_id, "worker_lost")
    assert (told.complete, told.provider_type) == (False, "near")
    assert told.client_request == digest(asker.bodies[job.request_id])
    assert {told.forwarded_request, told.upstream_response, told.client_response} == {Digest()}


async def test_a_call_whose_worker_died_before_it_spoke_is_not_told(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(keeps_silent, answers) as provider:
        catalog = a_tee_catalog(provider)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog, lease_seconds=0.6) as worker:
            job = await asker.ask(**STREAM)
            await eventually(lambda: len(provider.calls) == 1)
            await worker.killed()
        async with a_worker(valkey_db, catalog, lease_seconds=0.6):
            await asker.ended(job)
            rows = await asker.rows(2)
            (told,) = await asker.transcripts(1)
    assert told.complete
    assert [row.status for row in rows if row.row_id == told.receipt_id] == ["completed"]
