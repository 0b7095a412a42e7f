"""The worker's way from a claimed job to its settlement: real Valkey, real simulator, no API."""

import asyncio
import json
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.clock import SystemClock
from shared.reply import Kind
from shared.usage import Usage
from tests.catalogs import a_catalog
from tests.integration.provider import (
    Call,
    a_chunk,
    a_completion,
    answers,
    fails,
    keeps_silent,
    scripted,
    speaks_and_stops,
)
from tests.integration.queue import Queue
from tests.integration.test_simulator import Running, simulator
from tests.integration.worker import PATIENT, PRICE, Asker, Shelf, a_worker, eventually, one_model
from workers.runner import MAX_DELIVERIES

FAST_RETRIES: dict[str, Any] = {"attempts": 2, "backoff_seconds": 0.05}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        yield running


def sim_catalog(sim: Running) -> Catalog:
    paths = {"openai": "/v1", "near": "/near/v1", "phala": "/phala/v1", "vercel": "/vercel/v1"}
    providers = {
        kind: {"type": kind, "base_url": sim.url, "base_path": path, **PATIENT}
        for kind, path in paths.items()
    }
    models = {
        kind: {"providers": [{"provider": kind, "upstream_model": "sim/echo"}], "price": PRICE}
        for kind in paths
    }
    faults = {
        fault: {
            "providers": [{"provider": "openai", "upstream_model": f"sim/fault/{fault}"}],
            "price": PRICE,
        }
        for fault in ("no_usage", "huge", "cut_after_20")
    }
    limits = {"max_answer_bytes": 1 << 20}
    return a_catalog(providers, {**models, **faults}, limits=limits)


# ---- answers


@pytest.mark.parametrize("model", ["openai", "near", "phala", "vercel"])
async def test_a_whole_answer_is_settled_with_its_row(
    valkey_db: str, queue: Queue, sim: Running, model: str
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask(model, tags={"a": "b"})
        replies = await asker.ended(job)
    answer = json.loads(replies.answer.body)
    assert answer["choices"][0]["message"]["content"] == "one two three"
    (row,) = await asker.rows()
    assert (row.status, row.billed, row.usage_source) == ("completed", True, "provider")
    assert row.usage.input_tokens == answer["usage"]["prompt_tokens"]
    assert row.usage.output_tokens == answer["usage"]["completion_tokens"] == 3
    assert row.cost_usd == Decimal(str(replies.answer.cost_usd)) == row.price.cost(row.usage)
    assert (row.request_id, row.finish_reason, row.tags) == (job.request_id, "stop", {"a": "b"})
    assert (row.provider, row.streamed, row.attempt) == (model, False, 1)
    call = sim.last()
    assert call["client_request_id"] == row.row_id
    await asker.at_rest()


@pytest.mark.parametrize("include_usage", [True, False], ids=["usage asked", "usage not asked"])
@pytest.mark.parametrize("model", ["openai", "near", "phala", "vercel", "no_usage"])
async def test_a_stream_ends_with_done_and_with_usage_if_asked_for(
    valkey_db: str, queue: Queue, sim: Running, model: str, include_usage: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask(model, stream=True, include_usage=include_usage)
        replies = await asker.ended(job)
    assert replies.kinds[-1] == Kind.END
    assert replies.text == "one two three"
    assert replies.bytes.endswith(b"\n\ndata: [DONE]\n\n")
    usage_chunks = [chunk["usage"] for chunk in replies.chunks if not chunk["choices"]]
    assert len(usage_chunks) == include_usage
    (row,) = await asker.rows()
    assert row.usage_source == ("estimated" if model == "no_usage" else "provider")
    assert (row.status, row.usage.output_tokens, row.streamed) == ("completed", 3, True)
    assert row.ttft_ms is not None
    if include_usage:
        (usage,) = usage_chunks
        assert usage["completion_tokens"] == 3
        assert usage["prompt_tokens"] == row.usage.input_tokens > 0
    await asker.at_rest()


async def test_raw_answers_are_added_for_those_who_asked(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    raw: dict[str, Any] = {"include_raw_usage": True, "include_raw_response": True}
    async with a_worker(valkey_db, catalog):
        whole = await asker.ended(await asker.ask("vercel", **raw))
        stream = await asker.ended(
            await asker.ask("vercel", stream=True, include_usage=True, **raw)
        )
    answer = json.loads(whole.answer.body)
    assert answer["ollm_raw_usage"][0]["provider_type"] == "vercel"
    assert "cost" in answer["ollm_raw_usage"][0]["data"]
    assert json.loads(answer["ollm_raw_response"][0]["data"])["id"].startswith("gen_")
    assert all(json.loads(c["ollm_raw_chunk"]) for c in stream.chunks if c["choices"])


async def test_an_answer_beyond_the_bound_is_a_502(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        replies = await asker.ended(await asker.ask("huge"))
    assert (replies.error.status, replies.error.code) == (502, "upstream_protocol_error")
    (row,) = await asker.rows()
    assert (row.status, row.billed) == ("failed", False)


# ---- retries and fallback


async def test_a_500_is_tried_again_after_a_pause_and_each_attempt_has_its_row(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500), answers) as provider:
        catalog = one_model(provider.url, retries=FAST_RETRIES)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask())
    assert b"hello" in replies.answer.body
    first, second = await asker.rows()
    assert [call.row_id for call in provider.calls] == [first.row_id, second.row_id]
    assert (first.status, first.error_code, first.billed, first.attempt) == (
        "failed", "upstream_error", False, 1,
    )  # fmt: skip
    assert (first.usage, first.cost_usd) == (Usage(), Decimal(0))
    assert (second.status, second.billed, second.attempt) == ("completed", True, 2)
    await asker.at_rest()


async def test_the_pause_a_provider_asks_for_is_kept(valkey_db: str, queue: Queue) -> None:
    async with scripted(fails(429, "retry-after: 1\r\n"), answers) as provider:
        catalog = one_model(provider.url, retries=FAST_RETRIES)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask())
    assert replies.answer.body
    first, second = provider.called_at
    assert second - first >= 1


async def test_a_pause_longer_than_we_would_wait_is_told_to_the_client(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(429, "retry-after: 77\r\n")) as provider:
        catalog = one_model(provider.url, retries=FAST_RETRIES)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            error = (await asker.ended(await asker.ask())).error
    assert (error.status, error.code, error.retry_after) == (429, "upstream_rate_limited", 77)
    assert len(provider.calls) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_second_provider_is_asked_when_the_first_cannot(
    valkey_db: str, queue: Queue, stream: bool
) -> None:
    async with scripted(fails(503)) as first, scripted(answers) as second:
        catalog = one_model(first.url, second.url, retries=FAST_RETRIES)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=stream))
    assert replies.kinds[-1] == (Kind.END if stream else Kind.WHOLE)
    assert (len(first.calls), len(second.calls)) == (2, 1)
    rows = await asker.rows()
    assert [(row.provider, row.status, row.billed) for row in rows] == [
        ("p0", "failed", False),
        ("p0", "failed", False),
        ("p1", "completed", True),
    ]


@pytest.mark.parametrize("way", ["broken", "ended", "garbage", "error"])
async def test_after_the_first_byte_nobody_else_is_asked(
    valkey_db: str, queue: Queue, way: str
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.say("hel", "lo")
        if way == "broken":
            call.cut()
        elif way == "ended":
            await call.send(b"0\r\n\r\n")
        else:
            await call.event(b"{" if way == "garbage" else {"error": {"message": "died"}})
            await call.left.wait()

    async with scripted(script) as first, scripted(answers) as second:
        catalog = one_model(first.url, second.url, retries=FAST_RETRIES)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=True))
    assert replies.text == "hello"
    assert b"[DONE]" not in replies.bytes
    assert replies.error.status == 502
    assert (len(first.calls), len(second.calls)) == (1, 0)
    (row,) = await asker.rows()
    assert (row.status, row.billed, row.usage_source) == ("failed", True, "estimated")
    assert row.usage.output_tokens == 2
    assert row.cost_usd == row.price.cost(row.usage) > 0
    await asker.at_rest()


@pytest.mark.parametrize("words", [(), ("hel", "lo")], ids=["empty", "spoken"])
async def test_a_stream_that_is_done_without_a_finish_reason_is_not_complete(
    valkey_db: str, queue: Queue, words: tuple[str, ...]
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.say(*words)
        await call.event(b"[DONE]")
        await call.send(b"0\r\n\r\n")

    async with scripted(script) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=True))
    assert replies.text == "".join(words)
    assert b"[DONE]" not in replies.bytes
    assert (replies.error.status, replies.error.code) == (502, "upstream_protocol_error")
    (row,) = await asker.rows()
    assert (row.status, row.billed) == ("failed", bool(words))


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        (400, 400, "invalid_value"),
        (422, 400, "invalid_value"),
        (404, 404, "model_not_found"),
        (401, 502, "upstream_rejected_credentials"),
        (403, 502, "upstream_rejected_credentials"),
    ],
)
async def test_what_another_try_cannot_mend_is_tried_once(
    valkey_db: str, queue: Queue, upstream: int, status: int, code: str
) -> None:
    async with scripted(fails(upstream)) as first, scripted(answers) as second:
        catalog = one_model(first.url, second.url, retries=FAST_RETRIES)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            error = (await asker.ended(await asker.ask())).error
    assert (error.status, error.code) == (status, code)
    assert (len(first.calls), len(second.calls)) == (1, 0)
    (row,) = await asker.rows()
    assert (row.status, row.error_code, row.billed) == ("failed", code, False)


async def test_a_providers_secrets_do_not_reach_the_client(valkey_db: str, queue: Queue) -> None:
    async def script(call: Call) -> None:
        await call.respond({"error": {"message": "no: sk-abcdefghijkl " + "x" * 500}}, 400)

    async with scripted(script) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            error = (await asker.ended(await asker.ask())).error
    assert error.message.startswith("no: [redacted] xxx")
    assert len(error.message) == 400


async def test_a_failing_provider_is_left_alone_and_tried_again_after_a_while(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500), fails(500), answers) as provider:
        catalog = one_model(provider.url, breaker={"failures": 2, "open_seconds": 0.5})
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            codes = [(await asker.ended(await asker.ask())).error.code for _ in range(3)]
            assert codes == ["upstream_error", "upstream_error", "provider_unavailable"]
            assert len(provider.calls) == 2
            async with asyncio.timeout(5):
                while (await asker.ended(await asker.ask())).kinds == [Kind.FAILED]:
                    pass  # refused at once, until the pause is over
            assert len(provider.calls) == 3
            assert (await asker.ended(await asker.ask())).answer.body
    assert len(await asker.rows()) == 4, "a job that called nobody has no row"


async def test_an_open_breaker_sends_a_job_to_the_next_provider_at_once(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500)) as first, scripted(answers) as second:
        catalog = one_model(first.url, second.url, breaker={"failures": 1, "open_seconds": 60})
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            for _ in range(3):
                assert (await asker.ended(await asker.ask())).answer.body
    assert (len(first.calls), len(second.calls)) == (1, 3)


# ---- timeouts


async def test_a_provider_that_refuses_connections_is_a_502(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        pass
    catalog = one_model(provider.url)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        error = (await asker.ended(await asker.ask())).error
    assert (error.status, error.code) == (502, "upstream_error")
    (row,) = await asker.rows()
    assert (row.status, row.usage_source, row.billed) == ("failed", "none", False)


async def test_a_connection_that_does_not_come_about_is_given_up_in_time(
    valkey_db: str, queue: Queue
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # they fill the backlog, which nobody empties
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        async with scripted(answers) as second:
            catalog = one_model(
                f"http://127.0.0.1:{port}", second.url, timeouts={"connect": 0.2, "first_byte": 5}
            )
            asker = Asker(queue, catalog)
            async with a_worker(valkey_db, catalog):
                assert (await asker.ended(await asker.ask())).answer.body
        for one in waiting:
            one.close()
    first, _ = await asker.rows()
    assert (first.provider, first.error_code) == ("p0", "upstream_error")
    assert 150 < first.upstream_ms < 1500


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_first_byte_that_does_not_come_sends_the_job_elsewhere(
    valkey_db: str, queue: Queue, stream: bool
) -> None:
    async with scripted(keeps_silent) as first, scripted(answers) as second:
        catalog = one_model(
            first.url, second.url, timeouts={"first_byte": 0.2}, retries=FAST_RETRIES
        )
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=stream))
            await eventually(first.calls[0].left.is_set, 1)
    assert replies.kinds[-1] in (Kind.END, Kind.WHOLE)
    assert len(first.calls) == 1, "one that is slow is not asked again"
    slow, _ = await asker.rows()
    assert (slow.status, slow.error_code, slow.billed) == ("failed", "upstream_timeout", False)


async def test_a_first_byte_that_nobody_sends_is_a_504(valkey_db: str, queue: Queue) -> None:
    async with scripted(keeps_silent) as provider:
        catalog = one_model(provider.url, timeouts={"first_byte": 0.2})
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            error = (await asker.ended(await asker.ask())).error
    assert (error.status, error.code) == (504, "upstream_timeout")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_jobs_whole_time_is_bounded(valkey_db: str, queue: Queue, stream: bool) -> None:
    async with scripted(speaks_and_stops if stream else keeps_silent) as provider:
        catalog = one_model(provider.url, timeouts={"first_byte": 60})
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=stream, total_seconds=0.5))
            await eventually(provider.calls[0].left.is_set, 1)
    assert (replies.error.status, replies.error.code) == (504, "deadline_exceeded")
    assert replies.text == ("hello" if stream else "")
    (row,) = await asker.rows()
    assert (row.status, row.error_code, row.billed) == ("failed", "deadline_exceeded", stream)
    assert row.usage.output_tokens == (2 if stream else 0)
    await asker.at_rest()


async def test_a_job_that_waited_too_long_calls_nobody(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        late = SystemClock().now() - 61
        async with a_worker(valkey_db, catalog):
            error = (await asker.ended(await asker.ask(admitted_at=late))).error
    assert (error.status, error.code) == (504, "queue_timeout")
    assert provider.calls == []
    assert await asker.rows() == []
    await asker.at_rest()


# ---- catalogs


async def entries_added(queue: Queue) -> int:
    """Ever, to the lane: a job given back is one more."""
    flat = await queue.client.call(b"XINFO", b"STREAM", queue.keys.lanes["default"])
    return int(dict(zip(flat[::2], flat[1::2], strict=True))[b"entries-added"])


async def test_a_job_of_a_catalog_nobody_knows_waits_for_one_who_does(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as provider:
        known, new = one_model(provider.url), one_model(provider.url, retries=FAST_RETRIES)
        asker = Asker(queue, new)
        async with a_worker(valkey_db, known) as worker:
            job = await asker.ask()
            async with asyncio.timeout(5):
                while await entries_added(queue) <= 1 + MAX_DELIVERIES:
                    assert (await asker.replies(job)).frames == [], "a job given back is not buried"
            worker.shelf.known[new.hash] = new
            assert (await asker.ended(job)).answer.body
    (row,) = await asker.rows()
    assert row.config_hash == new.hash
    await asker.at_rest()


async def test_a_provider_switched_off_since_the_admission_is_not_called(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as first, scripted(answers) as second:
        old = one_model(first.url, second.url)
        now = one_model(first.url, second.url, enabled=False)
        asker, shelf = Asker(queue, old), Shelf(old)
        shelf.current = now
        async with a_worker(valkey_db, old, shelf=shelf):
            error = (await asker.ended(await asker.ask())).error
    assert (error.status, error.code) == (503, "model_unavailable")
    assert (first.calls, second.calls) == ([], [])
    assert await asker.rows() == []


# ---- what must not be sent on


async def test_what_is_ours_does_not_reach_the_provider(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        body = {"ollm::tags": {"a": "b"}, "max_tokens": 9, "max_completion_tokens": 5, "top_k": 1}
        async with a_worker(valkey_db, catalog):
            await asker.ended(await asker.ask(stream=True, body=body))
    sent = provider.calls[0].document
    assert not [name for name in sent if name.startswith("ollm::")]
    assert (sent["max_completion_tokens"], sent["top_k"], sent["model"]) == (5, 1, "m")
    assert "max_tokens" not in sent
    assert sent["stream_options"] == {"include_usage": True}


async def test_a_stream_split_at_any_byte_is_the_same_stream(valkey_db: str, queue: Queue) -> None:
    async def in_crumbs(call: Call) -> None:
        await call.open_stream()
        said = [a_chunk("wör"), a_chunk("ld ☃"), a_chunk("", finish_reason="stop")]
        wire = b"".join(b"data: " + json.dumps(c).encode() + b"\r\n\r\n" for c in said)
        for byte in b": a comment\r\n\r\n" + wire + b"data:[DONE]\n\n":
            await call.send(b"1\r\n%c\r\n" % byte)
        await call.send(b"0\r\n\r\n")

    async with scripted(in_crumbs) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=True))
    assert replies.text == "wörld ☃"
    assert replies.kinds[-1] == Kind.END


async def test_two_hundred_jobs_at_once_each_get_their_own_answer(
    valkey_db: str, queue: Queue
) -> None:
    async def repeats(call: Call) -> None:
        await call.respond(a_completion(call.document["tag"]))

    async with scripted(repeats) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            jobs = [await asker.ask(body={"tag": f"job {number}"}) for number in range(200)]
            for number, job in enumerate(jobs):
                answer = json.loads((await asker.ended(job)).answer.body)
                assert answer["choices"][0]["message"]["content"] == f"job {number}"
    assert len({row.row_id for row in await asker.rows(200)}) == 200
    await asker.at_rest()


async def test_one_event_of_several_megabytes_reaches_the_client(
    valkey_db: str, queue: Queue
) -> None:
    picture = "x" * (3 << 20)

    async def paints(call: Call) -> None:
        await call.open_stream()
        await call.say("one", picture, finish=True)

    async with scripted(paints) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask(stream=True))
    assert replies.text == "one" + picture


async def test_a_provider_without_a_key_is_asked_without_a_credential(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url, api_key_env=None)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(await asker.ask())
        assert "authorization" not in provider.calls[0].headers
    assert replies.answer.body
