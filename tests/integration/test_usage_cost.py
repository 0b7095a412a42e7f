"""`compat.usage_cost`: what an answer says of its cost is what its rows say; and the price that a job
brings is the one it pays."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.job import JobHeader
from shared.price import Price
from tests.catalogs import a_catalog
from tests.integration.provider import scripted
from tests.integration.queue import Queue
from tests.integration.test_simulator import Running, simulator
from tests.integration.test_uploads import Sender, hears
from tests.integration.worker import PATIENT, PRICE, Asker, Replies, a_worker, eventually
from workers.inference.usage_cost import document_with_cost

UPSTREAM = {
    "echo": ("sim", "sim/echo"),
    "embed": ("sim", "sim/embed"),
    "rerank": ("sim", "sim/rerank"),
    "counts_nothing": ("sim", "sim/fault/no_usage"),
    "vercel": ("vercel", "sim/chat"),
}
PER_REQUEST = {**PRICE, "request": "0.000001"}
"""So that an answer from the cache would cost something, were it counted as a call."""


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        yield running


def sim_catalog(sim: Running, *, usage_cost: bool = True) -> Catalog:
    aggregator = {"model": "echo"}
    variants = {
        "a": {"model": "echo"},
        "best": {"type": "best_of_n", "candidates": ["a", "a"], "evaluator": aggregator},
        "mixed": {"type": "mixture_of_n", "candidates": ["a", "a"], "fuser": aggregator},
    }
    return a_catalog(
        {
            "sim": {"base_url": sim.url, "base_path": "/v1", **PATIENT},
            "vercel": {
                "type": "vercel", "base_url": sim.url, "base_path": "/vercel/v1", **PATIENT
            },
        },
        {
            name: {
                "providers": [{"provider": provider, "upstream_model": upstream}],
                "price": PER_REQUEST,
            }
            for name, (provider, upstream) in UPSTREAM.items()
        },
        functions={"f": {"variants": variants}},
        compat={"usage_cost": usage_cost},
    )  # fmt: skip


def exact(body: bytes) -> Any:
    return json.loads(body, parse_float=Decimal)


def usages(header: JobHeader, replies: Replies) -> list[Any]:
    """All that the client was told, in order."""
    if not header.stream:
        return [exact(replies.answer.body).get("usage")]
    text = replies.bytes or replies.answer.body
    events = [event.removeprefix(b"data: ") for event in text.split(b"\n\n")]
    chunks = [exact(event) for event in events if event and event != b"[DONE]"]
    return [chunk["usage"] for chunk in chunks if not chunk["choices"]]


EMBED: dict[str, Any] = {"endpoint": "embeddings", "body": {"input": ["one two", "three"]}}
RERANK: dict[str, Any] = {"endpoint": "rerank", "body": {"query": "a", "documents": ["b", "c"]}}
STREAM: dict[str, Any] = {"stream": True, "include_usage": True}


@pytest.mark.parametrize(
    ("model", "header"),
    [
        ("echo", {}),
        ("echo", STREAM),
        ("vercel", {}),
        ("vercel", STREAM),
        ("counts_nothing", {}),
        ("counts_nothing", STREAM),
        ("embed", EMBED),
        ("rerank", RERANK),
        ("echo", {"include_raw_usage": True, "include_raw_response": True}),
    ],
)
async def test_an_answer_says_the_cost_of_its_row(
    valkey_db: str, queue: Queue, sim: Running, model: str, header: dict[str, Any]
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask(model, **header)
        (usage,) = usages(job, await asker.ended(job))
        (row,) = await asker.rows(1)
    assert usage["cost"] == row.cost_usd > Decimal("0.000001")
    assert usage["total_tokens"] == row.usage.input_tokens + row.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("variant", ["best", "mixed"])
async def test_the_answer_of_a_panel_says_the_cost_of_all_its_calls(
    valkey_db: str, queue: Queue, sim: Running, variant: str, stream: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask(
            "echo", function="f", variant=variant, stream=stream, include_usage=stream
        )
        (usage,) = usages(job, await asker.ended(job))
        rows = await asker.rows(3)
    assert usage["cost"] == sum(row.cost_usd for row in rows) > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_cache_answers_and_a_dry_run_cost_nothing(
    valkey_db: str, queue: Queue, sim: Running, stream: bool
) -> None:
    catalog = sim_catalog(sim)
    asker = Asker(queue, catalog)
    header: dict[str, Any] = {"stream": stream, "include_usage": stream}
    told = []
    async with a_worker(valkey_db, catalog) as worker:
        for more in ({"dryrun": True}, {"cache": "on"}, {"cache": "on"}):
            job = await asker.ask("echo", **header, **more)
            told += usages(job, await asker.ended(job))
            if "cache" in more:
                await eventually(lambda: worker.metrics.cache_puts.labels("stored").value == 1)
    assert [usage["cost"] > 0 for usage in told] == [False, True, False]


async def test_it_is_not_told_where_nobody_asked_for_it(
    valkey_db: str, queue: Queue, sim: Running
) -> None:
    catalog = sim_catalog(sim, usage_cost=False)
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        for model, header in (("echo", {}), ("echo", STREAM), ("embed", EMBED)):
            job = await asker.ask(model, **header)
            (usage,) = usages(job, await asker.ended(job))
            assert "cost" not in usage


async def test_a_transcription_says_its_cost_where_it_tells_a_usage(
    valkey_db: str, queue: Queue
) -> None:
    usage = {"type": "tokens", "input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
    async with scripted(hears([], {"text": "heard", "usage": usage})) as provider:
        models = {"m": {"providers": ["p"], "price": PER_REQUEST}}
        catalog = a_catalog(
            {"p": {"base_url": provider.url, **PATIENT}}, models, compat={"usage_cost": True}
        )
        sender = Sender(queue, Asker(queue, catalog), catalog.hash)
        async with a_worker(valkey_db, catalog):
            await sender.admit()
            await sender.send(b"hello")
            await sender.end()
            replies = await sender.ended()
            (row,) = await sender.asker.rows(1)
    assert exact(replies.answer.body) == {"text": "heard", "usage": {**usage, "cost": row.cost_usd}}
    assert row.cost_usd == Decimal("0.000019")


def test_only_an_answer_with_a_usage_says_what_it_cost() -> None:
    cost = Decimal("0.000000100")
    assert document_with_cost(b'{"text": "a"}', cost) == b'{"text":"a"}'
    assert document_with_cost(b'{"text":"a","usage":null}', cost) == b'{"text":"a","usage":null}'
    written = b'{"text":"a","usage":{"seconds":1.50},"n":1e3}'
    assert document_with_cost(written, cost) == (
        b'{"text":"a","usage":{"seconds":1.50,"cost":0.0000001},"n":1e3}'
    )


@pytest.mark.parametrize("header", [{}, STREAM, {"function": "f", "variant": "a"}])
async def test_the_price_a_job_brings_is_charged_and_kept(
    valkey_db: str, queue: Queue, sim: Running, header: dict[str, Any]
) -> None:
    catalog, price = sim_catalog(sim), Price(input=Decimal(100), output=Decimal("0.5"))
    asker = Asker(queue, catalog)
    async with a_worker(valkey_db, catalog):
        job = await asker.ask(
            "echo", prices={"sim:sim/echo": price, "sim:other": Price()}, **header
        )
        replies = await asker.ended(job)
        (row,) = await asker.rows(1)
    assert row.price == price
    assert row.cost_usd == price.cost(row.usage) > 0
    if not job.stream:
        assert Decimal(str(replies.answer.cost_usd)) == row.cost_usd
