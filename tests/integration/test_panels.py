"""Panels in a worker: candidates side by side, one answer of theirs, and a row for every call."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from shared.catalog import Catalog
from shared.job import JobHeader
from shared.spend import SpendRow
from shared.usage import Usage
from tests.catalogs import a_catalog
from tests.integration.provider import (
    USAGE,
    Call,
    Script,
    ScriptedProvider,
    a_completion,
    answers,
    fails,
    keeps_silent,
    scripted,
    speaks_and_stops,
)
from tests.integration.queue import Queue
from tests.integration.worker import PATIENT, PRICE, Asker, StartedWorker, a_worker, eventually

LEASE_SECONDS = 0.5
CLOSED_SECONDS = 1.0
SPENT = Usage(3, 4)
"""What each call says it used."""


def catalog(provider: ScriptedProvider, **settings: Any) -> Catalog:
    variants = {
        "a": {"model": "a", "system": "Be A."},
        "b": {"model": "b", "weight": 0},
        "t": {"model": "a", "weight": 0, "user_template": "Weather in {{ city }}?"},
        "again": {
            "model": "a", "weight": 0, "retries": {"attempts": 3, "backoff_seconds": 0.001},
        },
        "best": {
            "type": "best_of_n", "weight": 0, "candidates": ["a", "b"],
            "evaluator": {"model": "judge", "system": "Judge.", "max_tokens": 9},
            **settings,
        },
        "mixed": {
            "type": "mixture_of_n", "weight": 0, "candidates": ["a", "b", "b"],
            "fuser": {"model": "judge", "temperature": 0.25},
        },
        "asked": {
            "type": "mixture_of_n", "weight": 0, "candidates": ["t"], "fuser": {"model": "judge"},
        },
    }  # fmt: skip
    models = {name: {"providers": ["p"], "price": PRICE} for name in ("a", "b", "judge", "spare")}
    variants["spare"] = {"model": "spare", "weight": 0}
    return a_catalog(
        {"p": {"base_url": provider.url, "breaker": {"failures": 100}, **PATIENT}},
        models,
        functions={"f": {"variants": variants, "fallback": ["spare"]}},
    )


def says(text: str, **message: Any) -> Script:
    """Whole or streamed, as asked."""

    async def script(call: Call) -> None:
        if call.document.get("stream"):
            await call.open_stream()
            await call.say(text, finish=True)
            return
        completion = a_completion(text)
        choices: Any = completion["choices"]
        choices[0]["message"].update(message)
        await call.respond(completion)

    return script


def by_model(**scripts: Script) -> Script:
    async def script(call: Call) -> None:
        await scripts[call.document["model"]](call)

    return script


JUDGED: Mapping[str, Script] = {"a": says("from a"), "b": says("from b")}


async def ask(asker: Asker, variant: str = "best", *, pinned: bool = True, **header: Any) -> Any:
    return await asker.ask(
        "a",
        asked_model="ollm::function_name::f",
        function="f",
        variant=variant,
        variant_is_pinned=pinned,
        **header,
    )


def told(row: SpendRow) -> tuple[str, str, str, str | None, bool]:
    return row.variant, row.model, row.status, row.error_code, row.billed


def each_has_one_row(provider: ScriptedProvider, rows: list[SpendRow]) -> bool:
    return sorted(row.row_id for row in rows) == sorted(call.row_id for call in provider.calls)


def outcomes(worker: StartedWorker) -> dict[str, float]:
    (metric,) = worker.metrics.choices.collect()
    return {sample.labels["outcome"]: sample.value for sample in metric.samples}


# ---- best_of_n


async def test_the_chosen_answer_is_the_clients_and_all_calls_are_billed(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(**JUDGED, judge=says('{"choice": 1}'))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of) as worker:
            job = await ask(asker)
            reply = (await asker.ended(job)).answer
            rows = await asker.rows(3)
            await asker.at_rest()
    answer = json.loads(reply.body)
    assert answer["choices"][0]["message"]["content"] == "from b"
    assert answer["model"] == "ollm::function_name::f"
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
    assert {told(row) for row in rows} == {
        ("a", "a", "completed", None, True),
        ("b", "b", "completed", None, True),
        ("best", "judge", "completed", None, True),
    }
    assert each_has_one_row(provider, rows)
    assert {(row.usage, row.streamed) for row in rows} == {(SPENT, False)}
    assert sorted(row.attempt for row in rows) == [1, 2, 3]
    assert reply.cost_usd == format(sum(row.cost_usd for row in rows), "f")
    assert outcomes(worker) == {"chosen": 1}


async def test_an_evaluator_sees_the_conversation_and_the_answers_and_nothing_else(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(**JUDGED, judge=says('{"choice": 0}'))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            body = {"tools": [], "max_tokens": 1, "ollm::tags": {"a": "b"}}
            await asker.ended(await ask(asker, body=body))
    (asked,) = (call.document for call in provider.calls if call.document["model"] == "judge")
    system, user, last = asked["messages"]
    assert (system["content"], user["content"]) == ("Judge.", "one two three")
    shown = json.loads(last["content"].partition("\n\n")[2])
    assert shown == [{"index": 0, "answer": "from a"}, {"index": 1, "answer": "from b"}]
    schema = asked["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["choice"] == {"type": "integer", "enum": [0, 1]}
    assert asked.keys() == {"model", "messages", "response_format", "max_tokens"}
    assert asked["max_tokens"] == 9


@pytest.mark.parametrize(
    ("judge", "outcome"),
    [
        (says('{"choice": 7}'), "unclear"),
        (says("the second"), "unclear"),
        (says('{"choice": true}'), "unclear"),
        (says("x", content=None), "unclear"),
        (fails(500), "failed"),
        (fails(400), "failed"),
    ],
)
async def test_the_first_answer_is_taken_where_the_evaluator_is_of_no_use(
    valkey_db: str, queue: Queue, judge: Script, outcome: str
) -> None:
    async with scripted(by_model(**JUDGED, judge=judge)) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of) as worker:
            answer = json.loads((await asker.ended(await ask(asker))).answer.body)
            rows = await asker.rows(3)
    assert answer["choices"][0]["message"]["content"] == "from a"
    assert outcomes(worker) == {outcome: 1}
    assert {row.billed for row in rows if row.model != "judge"} == {True}
    assert {row.billed for row in rows if row.model == "judge"} == {outcome == "unclear"}


async def test_one_candidate_that_fails_is_made_up_for_and_one_answer_needs_no_evaluator(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(a=fails(500), b=says("from b"))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of) as worker:
            answer = json.loads((await asker.ended(await ask(asker))).answer.body)
            rows = await asker.rows(2)
    assert answer["choices"][0]["message"]["content"] == "from b"
    assert answer["usage"]["total_tokens"] == 7
    assert {told(row) for row in rows} == {
        ("a", "a", "failed", "upstream_error", False),
        ("b", "b", "completed", None, True),
    }
    assert outcomes(worker) == {"alone": 1}


async def test_a_slow_candidate_is_cut_and_the_others_answer(valkey_db: str, queue: Queue) -> None:
    async with scripted(by_model(a=keeps_silent, b=says("from b"))) as provider:
        of = catalog(provider, candidate_timeout=0.3)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            answer = json.loads((await asker.ended(await ask(asker))).answer.body)
            rows = await asker.rows(2)
            (slow,) = (call for call in provider.calls if call.document["model"] == "a")
            async with asyncio.timeout(CLOSED_SECONDS):
                await slow.left.wait()
            await asker.at_rest()
    assert answer["choices"][0]["message"]["content"] == "from b"
    assert {told(row) for row in rows} == {
        ("a", "a", "failed", "candidate_timeout", False),
        ("b", "b", "completed", None, True),
    }


async def test_where_all_candidates_fail_the_fallbacks_follow_and_a_pinned_variant_has_none(
    valkey_db: str, queue: Queue
) -> None:
    script = by_model(a=fails(500), b=fails(500), spare=says("spare"))
    async with scripted(script) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            error = (await asker.ended(await ask(asker))).error
            replies = await asker.ended(await ask(asker, pinned=False, stream=True))
            rows = await asker.rows(5)
    assert (error.status, error.code) == (502, "upstream_error")
    assert replies.text == "spare"
    assert each_has_one_row(provider, rows)
    assert [told(row) for row in rows if row.billed] == [
        ("spare", "spare", "completed", None, True)
    ]


async def test_calls_that_fail_side_by_side_each_write_their_row_once(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500)) as provider:
        of = catalog(provider, candidates=["again"] * 8)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            await asker.ended(await ask(asker))
            rows = await asker.rows(24)
            await asker.at_rest()
    assert len(provider.calls) == 24
    assert each_has_one_row(provider, rows)
    assert sorted(row.attempt for row in rows) == list(range(1, 25))


async def test_a_chosen_answer_is_streamed_where_the_client_streams(
    valkey_db: str, queue: Queue
) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    both = {"a": says("from a", tool_calls=calls), "b": says("from b")}
    async with scripted(by_model(**both, judge=says('{"choice": 0}'))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            job = await ask(asker, stream=True, include_usage=True, include_raw_usage=True)
            replies = await asker.ended(job)
            rows = await asker.rows(3)
    first, text, tools, end, usage = replies.chunks
    assert replies.bytes.endswith(b"data: [DONE]\n\n")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": "from a"}
    assert tools["choices"][0]["delta"] == {"tool_calls": [{"index": 0, **calls[0]}]}
    assert (end["choices"][0]["delta"], end["choices"][0]["finish_reason"]) == ({}, "stop")
    assert usage["usage"]["total_tokens"] == 21
    assert [raw["data"] for raw in usage["ollm_raw_usage"]] == [USAGE] * 3
    assert {chunk["id"] for chunk in replies.chunks} == {f"chatcmpl-{job.request_id}"}
    assert {chunk["object"] for chunk in replies.chunks} == {"chat.completion.chunk"}
    assert {row.billed for row in rows} == {True}


async def test_a_long_answer_is_streamed_bit_by_bit(valkey_db: str, queue: Queue) -> None:
    long = "é" * 300_000
    async with scripted(by_model(a=says(long), b=fails(500))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            replies = await asker.ended(await ask(asker, stream=True))
            rows = await asker.rows(2)
    assert replies.text == long
    assert len(replies.frames) > 1
    assert each_has_one_row(provider, rows)


# ---- mixture_of_n


async def test_a_fuser_streams_what_it_makes_of_the_candidates(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(**JUDGED, judge=says("fused"))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            replies = await asker.ended(await ask(asker, "mixed", stream=True, include_usage=True))
            rows = await asker.rows(4)
            whole = json.loads((await asker.ended(await ask(asker, "mixed"))).answer.body)
            await asker.rows(8)
    assert replies.text == "fused"
    assert replies.bytes.endswith(b"data: [DONE]\n\n")
    assert replies.chunks[-1]["usage"]["total_tokens"] == 28
    assert whole["usage"]["total_tokens"] == 28
    assert {row.usage for row in rows} == {SPENT}
    assert {row.billed for row in rows} == {True}
    assert [row.variant for row in rows if row.streamed] == ["mixed"]
    asked = next(call.document for call in provider.calls if call.document["model"] == "judge")
    assert (asked["temperature"], asked["messages"][0]["content"]) == (0.25, "one two three")
    shown = json.loads(asked["messages"][-1]["content"].partition("\n\n")[2])
    assert sorted(one["answer"] for one in shown) == ["from a", "from b", "from b"]


async def test_arguments_reach_a_fuser_as_the_first_candidate_has_them(
    valkey_db: str, queue: Queue
) -> None:
    part = {"type": "text", "ollm::arguments": {"city": "Oslo"}}
    body = {"messages": [{"role": "user", "content": [part]}]}
    async with scripted(by_model(**JUDGED, judge=says("fused"))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            await asker.ended(await ask(asker, "asked", body=body))
    assert [call.document["messages"][0]["content"] for call in provider.calls] == [
        "Weather in Oslo?"
    ] * 2
    assert "ollm::" not in json.dumps([call.document for call in provider.calls])


async def test_completed_candidates_are_billed_also_where_the_fuser_fails(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(**JUDGED, judge=fails(500))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            error = (await asker.ended(await ask(asker, "mixed"))).error
            rows = await asker.rows(4)
    assert error.status == 502
    assert sorted(told(row)[1:] for row in rows) == [
        ("a", "completed", None, True),
        ("b", "completed", None, True),
        ("b", "completed", None, True),
        ("judge", "failed", "upstream_error", False),
    ]


async def test_a_dry_run_of_a_panel_writes_no_row(valkey_db: str, queue: Queue) -> None:
    async with scripted(by_model(a=says("x"), b=fails(500), judge=says("fused"))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            reply = (await asker.ended(await ask(asker, "mixed", dryrun=True))).answer
            await asker.at_rest()
            assert await asker.rows() == []
    assert reply.cost_usd == "0"


# ---- other ends


def completed(*workers: StartedWorker) -> float:
    """Calls that were answered."""
    return sum(
        sample.value
        for worker in workers
        for metric in worker.metrics.attempts.collect()
        for sample in metric.samples
        if sample.labels["status"] == "completed"
    )


async def all_called(provider: ScriptedProvider, count: int) -> None:
    await eventually(lambda: len(provider.calls) == count)


async def test_a_client_that_leaves_closes_all_calls_and_each_has_its_row(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(a=keeps_silent, b=says("from b"))) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of) as worker:
            job = await ask(asker, "mixed")
            await all_called(provider, 3)
            await eventually(lambda: completed(worker) == 2)
            await queue.admission.cancel(queue.client, job.request_id, job.lane)
            rows = await asker.rows(3)
            (silent,) = (call for call in provider.calls if call.document["model"] == "a")
            async with asyncio.timeout(CLOSED_SECONDS):
                await silent.left.wait()
            await asker.at_rest()
    assert each_has_one_row(provider, rows)
    assert sorted(told(row)[1:] for row in rows) == [
        ("a", "cancelled", "client_disconnected", True),
        ("b", "completed", None, True),
        ("b", "completed", None, True),
    ]


async def test_a_jobs_deadline_ends_all_its_calls(valkey_db: str, queue: Queue) -> None:
    async with scripted(keeps_silent) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            error = (await asker.ended(await ask(asker, total_seconds=0.5))).error
            rows = await asker.rows(2)
            await asker.at_rest()
    assert (error.status, error.code) == (504, "deadline_exceeded")
    assert each_has_one_row(provider, rows)
    assert {(row.status, row.error_code, row.billed) for row in rows} == {
        ("failed", "deadline_exceeded", False)
    }


async def test_a_drained_panel_is_given_back_unpaid_and_run_again(
    valkey_db: str, queue: Queue
) -> None:
    slow = by_model(a=keeps_silent, b=says("from b"))
    again = by_model(**JUDGED, judge=says('{"choice": 0}'))
    async with scripted(slow, slow, again) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of, drain_seconds=0.3) as worker:
            job = await ask(asker)
            await all_called(provider, 2)
            await eventually(lambda: completed(worker) == 1)
            await worker.drained()
        async with a_worker(valkey_db, of):
            await asker.ended(job)
            rows = await asker.rows(5)
            await asker.at_rest()
    assert each_has_one_row(provider, rows)
    assert {told(row)[1:] for row in rows[:2]} == {
        ("a", "failed", "worker_drained", False),
        ("b", "completed", None, False),
    }
    assert {row.cost_usd for row in rows[:2]} == {0}
    assert {(row.status, row.billed) for row in rows[2:]} == {("completed", True)}


async def killed_while(
    asker: Asker, url: str, of: Catalog, provider: ScriptedProvider, calls: int, **job: Any
) -> JobHeader:
    """A worker takes the job and dies once so many calls are made; another is there."""
    async with (
        a_worker(url, of, lease_seconds=LEASE_SECONDS) as one,
        a_worker(url, of, lease_seconds=LEASE_SECONDS) as other,
    ):
        header: JobHeader = await ask(asker, **job)
        await all_called(provider, calls)
        if job.get("stream"):
            await asker.spoken(header)
        else:
            await eventually(lambda: completed(one, other) == 1)
        await (one if one.runner.held_jobs else other).killed()
        await asker.ended(header)
        await asker.rows(calls)
    return header


async def test_each_call_of_a_dead_workers_panel_has_one_row_and_is_not_paid_for(
    valkey_db: str, queue: Queue
) -> None:
    slow = by_model(a=keeps_silent, b=says("from b"))
    again = by_model(**JUDGED, judge=says('{"choice": 0}'))
    async with scripted(slow, slow, again) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        await killed_while(asker, valkey_db, of, provider, 2)
        rows = await asker.rows(5)
        await asker.at_rest()
    assert each_has_one_row(provider, rows)
    lost = [told(row)[1:] for row in rows if row.status == "lost"]
    assert sorted(lost) == [
        ("a", "lost", "worker_lost", False),
        ("b", "lost", "worker_lost", False),
    ]
    assert sum(row.billed for row in rows) == 3


async def test_of_a_dead_workers_panel_that_has_spoken_the_fuser_alone_is_paid_for(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(by_model(a=answers, b=answers, judge=speaks_and_stops)) as provider:
        of = catalog(provider)
        asker = Asker(queue, of)
        job = await killed_while(asker, valkey_db, of, provider, 4, variant="mixed", stream=True)
        rows = await asker.rows(4)
        assert (await asker.replies(job)).error.code == "stream_interrupted"
        await asker.at_rest()
    assert each_has_one_row(provider, rows)
    assert {row.status for row in rows} == {"lost"}
    assert [row.variant for row in rows if row.billed] == ["mixed"]
