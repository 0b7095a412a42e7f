"""Embeddings and rerank from a claimed job to its settlement; and dry runs, which leave nothing."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.usage import Usage
from tests.catalogs import a_catalog
from tests.integration.provider import (
    Call,
    Script,
    a_completion,
    fails,
    scripted,
    speaks_and_stops,
)
from tests.integration.queue import Queue
from tests.integration.test_simulator import Running, simulator
from tests.integration.worker import PATIENT, PRICE, Asker, a_worker, one_model
from workers.simulator.documents import DIMENSIONS

EMBED: dict[str, Any] = {"input": ["one two", "three"]}
RERANK: dict[str, Any] = {"query": "red fish", "documents": ["blue bird", "red fish", "red car"]}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        yield running


def sim_catalog(sim: Running) -> Catalog:
    providers = {"sim": {"base_url": sim.url, "base_path": "/v1", **PATIENT}}
    models = {
        name: {"providers": [{"provider": "sim", "upstream_model": f"sim/{name}"}], "price": PRICE}
        for name in ("embed", "rerank", "echo")
    }
    return a_catalog(providers, models)


def says(document: object) -> Script:
    async def script(call: Call) -> None:
        await call.respond(document)

    return script


async def test_embeddings_are_answered_under_the_name_asked_for_and_billed_for_their_input(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask("embed", endpoint="embeddings", asked_model="as asked", body=EMBED)
        answer = json.loads((await asker.ended(job)).answer.body)
        (row,) = await asker.rows(1)
    assert (answer["object"], answer["model"]) == ("list", "as asked")
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [len(item["embedding"]) for item in answer["data"]] == [DIMENSIONS, DIMENSIONS]
    assert (row.endpoint, row.usage, row.usage_source) == (
        "embeddings", Usage(input_tokens=3), "provider",
    )  # fmt: skip
    assert row.cost_usd == Decimal(3) / 1_000_000


async def test_a_reranking_is_answered_in_coheres_shape(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask("rerank", endpoint="rerank", body={**RERANK, "top_n": 2})
        answer = json.loads((await asker.ended(job)).answer.body)
        (row,) = await asker.rows(1)
    assert [result["index"] for result in answer["results"]] == [1, 2]
    assert answer["results"][0]["relevance_score"] == 1.0
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["id"]
    assert (row.endpoint, row.usage.input_tokens, row.status) == ("rerank", 8, "completed")


async def test_numbers_are_passed_on_as_the_provider_wrote_them(
    valkey_db: str, queue: Queue
) -> None:
    written = b'[{"index":0,"embedding":[1.50,-0.0,1e-7,12345678901234567890.5]}]'
    document = b'{"data":%b,"usage":{"prompt_tokens":2,"total_tokens":2},"model":"up"}' % written
    async with scripted(says(document)) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(endpoint="embeddings", body=EMBED)
            body = (await asker.ended(job)).answer.body
    assert written in body


async def test_a_provider_that_counts_nothing_is_metered_by_the_input(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(says({"data": [{"embedding": [1.0]}]})) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(endpoint="embeddings", body={"input": "x" * 40})
            answer = json.loads((await asker.ended(job)).answer.body)
            (row,) = await asker.rows(1)
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    assert (row.usage, row.usage_source) == (Usage(input_tokens=10), "estimated")


async def test_the_raw_answer_is_added_for_those_who_ask(valkey_db: str, queue: Queue) -> None:
    document = b'{"data": [{"embedding": [1]}], "extra": 1}'
    async with scripted(says(document)) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(endpoint="embeddings", body=EMBED, include_raw_response=True)
            answer = json.loads((await asker.ended(job)).answer.body)
    (raw,) = answer["ollm_raw_response"]
    assert (raw["api_type"], raw["data"]) == ("embeddings", document.decode())
    assert answer["extra"] == 1


@pytest.mark.parametrize(
    "document",
    [
        b"not json",
        b"[]",
        b'{"data": []}',
        b'{"data": [ ]}',
        b'{"data": {}}',
        b'{"data": null}',
        b"{}",
        b'{"error": {"message": "no"}, "data": [{"embedding": [1]}]}',
        b'{"data": [{"embedding": [1]}], "usage": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"data": [{"embedding": "\xff"}]}',
    ],
    ids=lambda document: document[:40].decode(errors="replace"),
)
async def test_an_answer_that_is_none_is_the_providers_failure(
    valkey_db: str, queue: Queue, document: bytes
) -> None:
    async with scripted(says(document)) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(endpoint="embeddings", body=EMBED)
            error = (await asker.ended(job)).error
            (row,) = await asker.rows(1)
    assert (error.status, error.code) == (502, "upstream_protocol_error")
    assert (row.status, row.billed) == ("failed", False)


async def test_an_endpoint_of_a_later_release_is_left_to_another_worker(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask("echo", endpoint="of.tomorrow", queue_seconds=0.5)
        error = (await asker.ended(job)).error
    assert error.code == "queue_timeout"


# ---- dry runs


@pytest.mark.parametrize("stream", [False, True])
async def test_a_dry_run_is_answered_and_leaves_no_row(
    valkey_db: str, queue: Queue, sim: Running, stream: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        dry = await asker.ask("echo", dryrun=True, stream=stream)
        replies = await asker.ended(dry)
        paid = await asker.ask("echo")
        await asker.ended(paid)
        (row,) = await asker.rows(1)
    text = replies.text if stream else json.loads(replies.answer.body)["choices"]
    assert text
    assert row.request_id == paid.request_id
    if not stream:
        assert Decimal(replies.answer.cost_usd or "1") == 0


async def test_a_dry_run_that_fails_over_leaves_no_row_either(valkey_db: str, queue: Queue) -> None:
    async with scripted(fails(500)) as broken, scripted(speaks_and_stops) as sound:
        catalog = one_model(broken.url, sound.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            dry = await asker.ask(dryrun=True, stream=True)
            await asker.spoken(dry)
            await queue.admission.cancel(queue.client, dry.request_id, dry.lane)
            assert (await asker.ended(dry)).error.code == "client_disconnected"
    assert await queue.spend_rows() == []


@pytest.mark.parametrize(("is_billed", "passed_on"), [(True, None), (False, "ann")])
@pytest.mark.parametrize("endpoint", ["chat.completions", "embeddings", "rerank"])
async def test_a_provider_gets_the_user_unless_it_is_whom_we_bill(
    valkey_db: str, queue: Queue, endpoint: str, is_billed: bool, passed_on: str | None
) -> None:
    answer = {
        **a_completion(), "data": [{"embedding": [1]}],
        "results": [{"index": 0, "relevance_score": 1}],
    }  # fmt: skip
    async with scripted(says(answer)) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        body = {**EMBED, **RERANK, "user": "ann"}
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(endpoint=endpoint, body=body, selector_is_billed=is_billed)
            assert (await asker.ended(job)).answer.body
    (call,) = provider.calls
    assert call.document.get("user") == passed_on
