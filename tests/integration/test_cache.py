"""The exact cache on a real worker and a real Valkey: what is given again, to whom, and what is left."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.reply import Kind
from shared.usage import Usage
from tests.catalogs import a_catalog
from tests.integration.provider import (
    Call,
    Script,
    a_chunk,
    a_completion,
    answers,
    fails,
    scripted,
    speaks_and_breaks,
)
from tests.integration.queue import Queue
from tests.integration.test_simulator import Running, simulator
from tests.integration.worker import (
    PATIENT,
    PRICE,
    Asker,
    Replies,
    StartedWorker,
    a_worker,
    eventually,
    one_model,
)

EMBED: dict[str, Any] = {"input": ["one two", "three"]}
ON: dict[str, Any] = {"cache": "on"}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        yield running


def sim_catalog(sim: Running, **cache: float) -> Catalog:
    providers = {"sim": {"base_url": sim.url, "base_path": "/v1", **PATIENT}}
    models = {
        name: {"providers": [{"provider": "sim", "upstream_model": f"sim/{name}"}], "price": PRICE}
        for name in ("embed", "echo")
    }
    return a_catalog(providers, models, cache=cache)


def put(worker: StartedWorker, outcome: str) -> float:
    return worker.metrics.cache_puts.labels(outcome).value


async def first(asker: Asker, worker: StartedWorker, *ask: str, **header: Any) -> Replies:
    """The provider's answer, once it is in the cache."""
    before = put(worker, "stored")
    replies = await asker.ended(await asker.ask(*ask, **{**ON, **header}))
    await eventually(lambda: put(worker, "stored") == before + 1)
    return replies


async def again(asker: Asker, *ask: str, **header: Any) -> Replies:
    return await asker.ended(await asker.ask(*ask, **{**ON, **header}))


def text_of(replies: Replies) -> Any:
    return json.loads(replies.answer.body)["choices"][0]["message"]["content"]


def counters(usage: Any) -> tuple[int, int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]


async def test_a_whole_answer_is_given_again_under_new_names_and_for_nothing(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    calls = len(sim.calls())
    async with a_worker(valkey_db, catalog) as worker:
        live = await first(asker, worker, "echo")
        job = await asker.ask("echo", asked_model="as asked", **ON)
        hit = (await asker.ended(job)).answer
        paid, free = await asker.rows(2)
    assert len(sim.calls()) == calls + 1
    assert (live.answer.headers, hit.headers) == ({"x-ollm-cache": "miss"}, {"x-ollm-cache": "hit"})
    before, after = json.loads(live.answer.body), json.loads(hit.body)
    assert after["choices"] == before["choices"]
    assert (after["id"], after["model"]) == (f"chatcmpl-{job.request_id}", "as asked")
    assert after["episode_id"].replace("-", "") == job.episode_id
    assert abs(after["created"] - job.admitted_at) < 60
    assert after.keys() == before.keys()
    assert counters(after["usage"]) == (0, 0, 0) != counters(before["usage"])
    assert hit.cost_usd == "0"
    assert (paid.cached, paid.billed, paid.cost_usd > 0) == (False, True, True)
    assert (free.cached, free.billed, free.cost_usd) == (True, False, Decimal(0))
    assert (free.request_id, free.status, free.attempt) == (job.request_id, "completed", 1)
    assert (free.usage, free.usage_source, free.finish_reason) == (Usage(), "none", "stop")
    assert (free.provider, free.price) == (paid.provider, paid.price)
    assert await queue.client.call(b"HLEN", queue.keys.job(job.request_id)) == 0


@pytest.mark.parametrize("include_usage", [True, False], ids=["usage asked", "usage not asked"])
async def test_a_stream_is_given_again_as_one_whole_text(
    valkey_db: str, queue: Queue, sim: Running, include_usage: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    wishes: dict[str, Any] = {"stream": True, "include_usage": include_usage}
    calls = len(sim.calls())
    async with a_worker(valkey_db, catalog) as worker:
        live = await first(asker, worker, "echo", **wishes)
        job = await asker.ask("echo", **ON, **wishes)
        replies = await asker.ended(job)
        _, row = await asker.rows(2)
    assert len(sim.calls()) == calls + 1
    assert live.kinds[-1] == Kind.END
    answer = replies.answer
    assert answer.content_type == "text/event-stream; charset=utf-8"
    assert answer.headers["x-ollm-cache"] == "hit"
    assert answer.body.endswith(b"\n\ndata: [DONE]\n\n")
    again = Replies([(Kind.END, 1, 1, answer.body)])
    assert again.text == live.text == "one two three"
    assert len(again.chunks) == len(live.chunks)
    assert {chunk["id"] for chunk in again.chunks} == {f"chatcmpl-{job.request_id}"}
    assert all(abs(chunk["created"] - job.admitted_at) < 60 for chunk in again.chunks)
    usage = [counters(chunk["usage"]) for chunk in again.chunks if not chunk["choices"]]
    assert usage == [(0, 0, 0)] * include_usage
    assert (row.cached, row.streamed, row.usage, row.ttft_ms) == (True, True, Usage(), None)


async def test_a_stream_without_usage_is_not_counted_by_its_text(
    valkey_db: str, queue: Queue
) -> None:
    async def counts_nothing(call: Call) -> None:
        await call.open_stream()
        await call.event(a_chunk("hello", finish_reason="stop"))
        await call.event(b"[DONE]")
        await call.send(b"0\r\n\r\n")

    wishes: dict[str, Any] = {"stream": True, "include_usage": True}
    async with scripted(counts_nothing, fails(500)) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker, **wishes)
            text = (await again(asker, **wishes)).answer.body
    last = Replies([(Kind.END, 1, 1, text)]).chunks[-1]
    assert counters(last["usage"]) == (0, 0, 0)


async def test_an_answer_with_fewer_vectors_than_inputs_is_not_given_again(
    valkey_db: str, queue: Queue
) -> None:
    async def embeds(call: Call) -> None:
        await call.respond({"data": [{"index": 0, "embedding": [1]}], "model": "up"})

    async with scripted(embeds) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        wishes: dict[str, Any] = {"endpoint": "embeddings", "body": EMBED, "cache": "on"}
        async with a_worker(valkey_db, catalog):
            for _ in range(2):
                assert (await asker.ended(await asker.ask(**wishes))).answer.headers == {
                    "x-ollm-cache": "miss"
                }
    assert len(provider.calls) == 2


async def test_embeddings_are_given_again_with_the_numbers_as_they_were_written(
    valkey_db: str, queue: Queue
) -> None:
    first_one = b'{"index":0,"embedding":[1.50,-0.0,1e-7,12345678901234567890.5]}'
    written = b'[%b,{"index":1,"embedding":[1]}]' % first_one
    document = b'{"data":%b,"usage":{"prompt_tokens":2,"total_tokens":2},"model":"up"}' % written

    async def embeds(call: Call) -> None:
        await call.respond(document)

    async with scripted(embeds, fails(500)) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        wishes: dict[str, Any] = {"endpoint": "embeddings", "body": EMBED}
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker, **wishes)
            answer = (await again(asker, **wishes)).answer
    assert answer.headers == {"x-ollm-cache": "hit"}
    assert written in answer.body
    assert json.loads(answer.body)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert json.loads(answer.body)["model"] == "m"


@pytest.mark.parametrize("stream", [False, True])
async def test_raw_parts_of_a_hit_have_the_shape_they_always_have(
    valkey_db: str, queue: Queue, sim: Running, stream: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    wishes: dict[str, Any] = {
        "stream": stream, "include_usage": stream,
        "include_raw_usage": True, "include_raw_response": True,
    }  # fmt: skip
    async with a_worker(valkey_db, catalog) as worker:
        await first(asker, worker, "echo", **wishes)
        body = (await again(asker, "echo", **wishes)).answer.body
    if stream:
        chunks = Replies([(Kind.END, 1, 1, body)]).chunks
        assert all(json.loads(chunk["ollm_raw_chunk"]) for chunk in chunks)
        holder = chunks[-1]
    else:
        holder = json.loads(body)
        assert json.loads(holder["ollm_raw_response"][0]["data"])["choices"]
    (raw,) = holder["ollm_raw_usage"]
    assert counters(raw["data"]) == (0, 0, 0)
    assert (raw["api_type"], raw["provider_type"]) == ("chat_completions", "openai")


# ---- who gets it


@pytest.mark.parametrize(
    "other",
    [{"tenant": "another"}, {"cache": "off"}, {"body": {"seed": 1}}, {"cache": "write_only"}],
    ids=str,
)
async def test_another_request_is_answered_by_the_provider(
    valkey_db: str, queue: Queue, other: dict[str, Any]
) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker)
            replies = await again(asker, **other)
    assert len(provider.calls) == 2
    assert replies.answer.headers.get("x-ollm-cache") != "hit"


async def test_what_is_only_read_is_not_written(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            for _ in range(2):
                missed = await again(asker, cache="read_only")
                assert missed.answer.headers == {"x-ollm-cache": "miss"}
            await first(asker, worker, cache="write_only")
            hit = await again(asker, cache="read_only")
    assert hit.answer.headers == {"x-ollm-cache": "hit"}
    assert len(provider.calls) == 3


async def test_an_entry_that_is_too_old_is_not_used(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker)
            await first(asker, worker, cache_max_age=0.0)
            await again(asker, cache_max_age=60.0)
            outcomes = {
                name: worker.metrics.cache_lookups.labels(name).value
                for name in ("miss", "stale", "hit", "error")
            }
    assert outcomes == {"miss": 1, "stale": 1, "hit": 1, "error": 0}
    assert len(provider.calls) == 2


async def test_an_entry_ends_with_its_time(valkey_db: str, queue: Queue, sim: Running) -> None:
    catalog = sim_catalog(sim, ttl_seconds=0.05)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog) as worker:
        await first(asker, worker, "echo")
        name = await the_entry(queue)
        async with asyncio.timeout(5):
            while await queue.client.call(b"EXISTS", name):  # noqa: ASYNC110  only the server knows
                await asyncio.sleep(0.01)
        replies = await again(asker, "echo")
    assert replies.answer.headers == {"x-ollm-cache": "miss"}


async def test_a_dry_run_reads_and_leaves_nothing(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await again(asker, dryrun=True)
            await first(asker, worker)
            hit = await again(asker, dryrun=True, cache="read_only")
            rows = await asker.rows()
    assert hit.answer.headers == {"x-ollm-cache": "hit"}
    assert len(provider.calls) == 2
    assert len(rows) == 1


async def test_the_answer_of_a_fallback_is_found_behind_its_own_provider(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500)) as broken, scripted(answers) as sound:
        catalog = one_model(broken.url, sound.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker)
            await again(asker)
            rows = await asker.rows(4)
    assert (len(broken.calls), len(sound.calls)) == (2, 1)
    assert [(row.status, row.attempt, row.cached) for row in rows] == [
        ("failed", 1, False), ("completed", 2, False), ("failed", 1, False), ("completed", 2, True),
    ]  # fmt: skip
    assert rows[3].cost_usd == Decimal(0)


# ---- what is never kept


async def unfinished(call: Call) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hm"}, "finish_reason": None}
    await call.respond(a_completion(choices=[choice]))


@pytest.mark.parametrize(
    ("script", "stream"),
    [(fails(400), False), (unfinished, False), (speaks_and_breaks, True)],
    ids=["refused", "no finish reason", "cut"],
)
async def test_an_answer_that_is_not_complete_is_not_kept(
    valkey_db: str, queue: Queue, script: Script, stream: bool
) -> None:
    async with scripted(script) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await again(asker, stream=stream)
            await again(asker, stream=stream)
            await worker.drained()
    assert len(provider.calls) == 2
    assert await queue.client.call(b"EXISTS", queue.keys.cache_index) == 0


async def test_an_answer_over_the_bound_is_given_and_not_kept(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim, max_entry_bytes=100)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog) as worker:
        for stream in (False, True):
            assert (await again(asker, "echo", stream=stream)).is_whole
        await eventually(lambda: put(worker, "too_large") == 2)
    assert await queue.client.call(b"EXISTS", queue.keys.cache_index) == 0


# ---- at rest


async def the_entry(queue: Queue) -> bytes:
    (member,) = await queue.client.call(b"ZRANGE", queue.keys.cache_index, 0, -1)
    return queue.keys.cache_entry(member.decode().rpartition(":")[0])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_entry_is_sealed_and_says_neither_prompt_nor_answer(
    valkey_db: str, queue: Queue, sim: Running, stream: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog) as worker:
        live = await first(asker, worker, "echo", stream=stream)
    assert (live.text if stream else text_of(live)) == "one two three"
    key = await the_entry(queue)
    value = await queue.client.call(b"GET", key)
    for word in (b"one", b"two", b"three", b"choices", b"echo"):
        assert word not in value
        assert word not in key
    assert 0 < await queue.client.call(b"PTTL", key) <= 86_400_000


async def test_a_full_server_refuses_the_entry_and_the_answer_goes_out(
    valkey_db: str, queue: Queue
) -> None:
    async def fills_the_server(call: Call) -> None:
        # While the call runs: a full server refuses admissions as well.
        await queue.client.call(b"CONFIG", b"SET", b"maxmemory", b"1")
        await answers(call)

    _, most = await queue.client.call(b"CONFIG", b"GET", b"maxmemory")
    async with scripted(fills_the_server) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            try:
                replies = await again(asker)
                await eventually(lambda: put(worker, "refused") == 1)
                rows = await asker.rows(1)
            finally:
                await queue.client.call(b"CONFIG", b"SET", b"maxmemory", most)
    assert text_of(replies) == "hello"
    assert [row.status for row in rows] == ["completed"]
    assert await queue.client.call(b"EXISTS", queue.keys.cache_index) == 0


async def test_a_provider_whose_breaker_is_open_is_not_needed_for_a_hit(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers, fails(500)) as provider:
        catalog = one_model(provider.url, breaker={"failures": 1, "open_seconds": 60})
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker)
            assert (await again(asker, cache="off")).error.code == "upstream_error"
            assert (await again(asker, cache="off")).error.code == "provider_unavailable"
            assert text_of(await again(asker)) == "hello"


async def test_an_entry_that_is_broken_costs_a_call(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            await first(asker, worker)
            await queue.client.call(b"SET", await the_entry(queue), b"broken")
            assert text_of(await again(asker)) == "hello"
            assert worker.metrics.cache_lookups.labels("error").value == 1
    assert len(provider.calls) == 2
