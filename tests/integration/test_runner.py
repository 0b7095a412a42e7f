"""Workers that stop, die, lose Valkey or get a job nobody can run: what becomes of their jobs."""

import asyncio
import base64
import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

from shared.embedded.servers import EmbeddedServers, GivenUrls
from shared.job import JobHeader
from shared.reply import Kind
from shared.spend import SpendRow, encode_row
from shared.usage import Usage
from tests.integration.metering import process
from tests.integration.provider import (
    Call,
    answers,
    keeps_silent,
    scripted,
    speaks_and_stops,
)
from tests.integration.queue import Queue, a_header, open_queue
from tests.integration.worker import Asker, a_worker, eventually, one_model
from tests.spend_rows import spend_row

LEASE_SECONDS = 0.5
CLOSED_SECONDS = 0.25
"""A cancelled call's connection is closed within this time (99 of 100)."""


def told(row: SpendRow) -> tuple[str, str | None, bool]:
    return row.status, row.error_code, row.billed


async def buried(queue: Queue) -> list[dict[bytes, bytes]]:
    entries = await queue.client.call(b"XRANGE", queue.keys.buried, b"-", b"+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]


async def taken_by(queue: Queue, worker: str, row: bytes) -> None:
    """Another worker takes the only job over, records an attempt, and is not heard of again."""
    lanes = queue.lanes(worker)
    claims = await lanes.claim(queue.client, 15)
    async with asyncio.timeout(5):
        while not claims:
            claims = await lanes.reclaim(queue.client, "default", lease_ms=1, at_most=1)
            await asyncio.sleep(0.01)
    (claim,) = claims
    outcome = await lanes.attempt(
        queue.client,
        claim,
        reply_to="api-1",
        row_id=f"row-{claim.deliveries}",
        row=row,
        ended=[(name, b"") for name in claim.attempts],
    )
    assert outcome == b"ok"


# ---- cancelling


@pytest.mark.parametrize("spoken", [True, False], ids=["mid-stream", "before the first byte"])
async def test_a_cancel_closes_the_providers_connection_and_bills_what_was_said(
    valkey_db: str, queue: Queue, spoken: bool
) -> None:
    async with scripted(speaks_and_stops if spoken else keeps_silent) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(stream=True)
            await eventually(lambda: len(provider.calls) == 1)
            if spoken:
                await asker.spoken(job)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await queue.admission.cancel(queue.client, job.request_id, "default") == "told"
            await eventually(provider.calls[0].left.is_set)
            assert loop.time() - began < CLOSED_SECONDS
            (row,) = await asker.rows(1)
    assert told(row) == ("cancelled", "client_disconnected", True)
    assert (row.usage.output_tokens, row.usage_source) == (2 if spoken else 0, "estimated")
    await asker.at_rest()


async def test_jobs_whose_inbox_is_gone_are_cancelled_with_their_next_post(
    valkey_db: str, queue: Queue
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        while not call.left.is_set():  # a server that is too young still gives its grace
            await call.say("hello ")
            await asyncio.sleep(0.02)

    async with scripted(script) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog, inbox_lease_seconds=0.5):
            job = await asker.ask(stream=True)
            await asker.spoken(job)
            await queue.inbox.close(queue.client)
            await eventually(provider.calls[0].left.is_set)
            (row,) = await asker.rows(1)
    assert told(row) == ("cancelled", "client_disconnected", True)
    await asker.at_rest()


async def test_a_reader_that_is_slow_pauses_the_provider_until_it_goes_on(
    valkey_db: str, queue: Queue
) -> None:
    async def endless(call: Call) -> None:
        await call.open_stream()
        while not call.left.is_set():
            await call.say("x" * 4096)

    async with scripted(endless) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog):
            job = await asker.ask(stream=True)
            await asker.spoken(job, "xxx")
            call = provider.calls[0]
            await queue.admission.notify(queue.client, job.request_id, "pause")
            await stands_still(call)
            paused_at = call.sent_bytes
            await asyncio.sleep(0.3)
            assert call.sent_bytes == paused_at
            await queue.admission.notify(queue.client, job.request_id, "resume")
            await eventually(lambda: call.sent_bytes > paused_at + (1 << 20))
            await queue.admission.cancel(queue.client, job.request_id, "default")
            await eventually(call.left.is_set)


async def stands_still(call: Call) -> None:
    """Until the buffers between provider and worker are full."""
    async with asyncio.timeout(10):
        seen = -1
        while seen != call.sent_bytes:
            seen = call.sent_bytes
            await asyncio.sleep(0.2)


# ---- draining


async def test_a_drain_lets_jobs_end_and_claims_no_others(valkey_db: str, queue: Queue) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> None:
        await go_on.wait()
        await answers(call)

    async with scripted(script) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog) as worker:
            running = await asker.ask()
            await eventually(lambda: len(provider.calls) == 1)
            worker.stop.set()
            await asyncio.sleep(1.2)  # its last look for jobs takes up to a second
            late = await asker.ask()
            await asyncio.sleep(0.1)
            assert len(provider.calls) == 1
            go_on.set()
            await worker.drained()
        assert (await asker.ended(running)).answer.body
        async with a_worker(valkey_db, catalog):
            assert (await asker.ended(late)).answer.body
    assert [row.status for row in await asker.rows()] == ["completed"] * 2
    await asker.at_rest()


async def test_a_drain_past_its_time_gives_unspoken_jobs_back_and_fails_the_others(
    valkey_db: str, queue: Queue
) -> None:
    async def script(call: Call) -> None:
        await (speaks_and_stops if call.document["stream"] else keeps_silent)(call)

    async with scripted(script, script, answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with a_worker(valkey_db, catalog, drain_seconds=0.1) as worker:
            spoken, silent = await asker.ask(stream=True), await asker.ask()
            await asker.spoken(spoken)
            await eventually(lambda: len(provider.calls) == 2)
            await worker.drained()
        assert (await asker.ended(spoken)).error.code == "stream_interrupted"
        assert (await asker.replies(silent)).frames == []
        async with a_worker(valkey_db, catalog):
            replies = await asker.ended(silent)
    assert replies.frames[0][2] == 1, "being given back is not a delivery"
    assert replies.answer.body
    rows = {row.row_id: told(row) for row in await asker.rows(3)}
    of = {bool(call.document["stream"]): rows[call.row_id] for call in provider.calls[:2]}
    assert of[True] == ("failed", "stream_interrupted", True)
    assert of[False] == ("failed", "worker_drained", False)
    assert rows[provider.calls[2].row_id] == ("completed", None, True)
    await asker.at_rest()


# ---- taking over


async def test_a_dead_workers_job_that_has_not_spoken_is_run_again(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(keeps_silent, answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with (
            a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS) as one,
            a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS) as other,
        ):
            job = await asker.ask()
            await eventually(lambda: len(provider.calls) == 1)
            victim = one if one.runner.held_jobs else other
            await victim.killed()
            replies = await asker.ended(job)
    assert replies.answer.body
    assert replies.frames[0][2] == 2, "the second delivery answers"
    lost, completed = await asker.rows()
    assert [lost.row_id, completed.row_id] == [call.row_id for call in provider.calls]
    assert told(lost) == ("lost", "worker_lost", False)
    assert (lost.usage, lost.usage_source) == (Usage(), "none")
    assert told(completed) == ("completed", None, True)
    assert completed.attempt == 2
    await asker.at_rest()


async def test_a_dead_workers_stream_that_has_spoken_fails_and_bills_what_was_seen(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(speaks_and_stops, answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with (
            a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS) as one,
            a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS) as other,
        ):
            job = await asker.ask(stream=True)
            await asker.spoken(job)
            await asyncio.sleep(LEASE_SECONDS / 2)  # one heartbeat, with what was seen
            victim = one if one.runner.held_jobs else other
            await victim.killed()
            replies = await asker.ended(job)
    assert replies.text == "hello"
    assert b"[DONE]" not in replies.bytes
    assert (replies.error.status, replies.error.code) == (502, "stream_interrupted")
    assert len(provider.calls) == 1, "what has spoken is not run again"
    (row,) = await asker.rows()
    assert told(row) == ("lost", "worker_lost", True)
    assert (row.usage.output_tokens, row.usage_source) == (2, "estimated")
    assert row.cost_usd == row.price.cost(row.usage) > 0
    await asker.at_rest()


async def test_a_long_job_is_not_taken_from_a_worker_that_lives(
    valkey_db: str, queue: Queue
) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> None:
        await go_on.wait()
        await answers(call)

    async with scripted(script) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        async with (
            a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS),
            a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS),
        ):
            job = await asker.ask()
            await asyncio.sleep(4 * LEASE_SECONDS)
            go_on.set()
            replies = await asker.ended(job)
    assert replies.frames[0][2] == 1
    assert len(provider.calls) == 1


async def test_a_job_whose_workers_all_died_is_buried_after_three_deliveries(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        job = await asker.ask()
        row = encode_row(msgspec.structs.replace(spend_row(), status="lost", billed=False))
        for number in range(3):
            await taken_by(queue, f"dead-{number}", row)
        async with a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS):
            replies = await asker.ended(job)
    assert (replies.error.status, replies.error.code) == (502, "job_buried")
    assert provider.calls == []
    (grave,) = await buried(queue)
    assert grave[b"r"] == job.request_id.encode()
    assert grave[b"reason"] == b"delivered 4 times"
    assert b"b" not in grave, "without its body"
    (lost,) = await asker.rows()
    assert told(lost) == ("lost", "worker_lost", False)
    await asker.at_rest()


async def test_a_job_after_two_deaths_is_still_run(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        job = await asker.ask()
        for number in range(2):
            await taken_by(queue, f"dead-{number}", encode_row(spend_row()))
        async with a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS):
            assert (await asker.ended(job)).answer.body
    assert [row.status for row in await asker.rows()] == ["lost", "completed"]


async def test_a_job_whose_header_nobody_can_read_is_buried_and_others_go_on(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        broken = a_header()
        await admit_unreadable(queue, broken)
        async with a_worker(valkey_db, catalog, lease_seconds=LEASE_SECONDS):
            assert (await asker.ended(await asker.ask())).answer.body
            async with asyncio.timeout(10):
                while await queue.job_exists(broken.request_id):
                    pass  # two leases go by before it is given up
    (grave,) = await buried(queue)
    assert grave[b"r"] == broken.request_id.encode()
    assert len(await asker.rows()) == 1
    await asker.at_rest()


async def admit_unreadable(queue: Queue, header: JobHeader) -> None:
    """As a later release might write it."""
    request_id, lane = header.request_id.encode(), queue.keys.lanes["default"]
    entry = await queue.client.call(
        *(b"XADD", lane, b"*", b"r", request_id, b"h", b"\xc1 from afar", b"b", b"sealed")
    )
    await queue.client.call(
        *(b"HSET", queue.keys.job(header.request_id), b"entry", entry, b"size", 6)
    )
    await queue.client.call(b"INCRBY", queue.keys.sealed_bytes, 6)


async def test_a_body_that_does_not_open_ends_its_job_at_once(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as provider:
        catalog = one_model(provider.url)
        asker = Asker(queue, catalog)
        header = a_header(model="m", config_hash=catalog.hash)
        await queue.admit(header)  # its body is not sealed at all
        async with a_worker(valkey_db, catalog):
            error = (await asker.ended(header)).error
    assert (error.status, error.code) == (500, "internal_error")
    assert provider.calls == []
    await asker.at_rest()


# ---- Valkey dies


async def test_a_stream_goes_on_without_a_gap_when_valkey_is_killed_and_comes_back(
    data_dir: Path,
) -> None:
    words = [f"w{number} " for number in range(200)]
    half = asyncio.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        for number, word in enumerate(words):
            await call.say(word)
            if number == 50:
                half.set()
            await asyncio.sleep(0.01)
        await call.say(finish=True)

    elsewhere = GivenUrls(postgres="postgresql://none.invalid", clickhouse="http://none.invalid")
    servers = EmbeddedServers(data_dir, given=elsewhere)
    await asyncio.to_thread(servers.start)
    try:
        url = servers.urls.valkey_url
        async with scripted(script, answers) as provider, open_queue(url) as queue:
            catalog = one_model(provider.url)
            asker = Asker(queue, catalog)
            async with a_worker(url, catalog):
                job = await asker.ask(stream=True)
                await half.wait()
                os.kill(servers.pids["valkey"], signal.SIGKILL)
                await asyncio.to_thread(servers.restart, "valkey")
                await queue.client.connected(5)
                replies = await asker.ended(job)
                assert (await asker.ended(await asker.ask())).answer.body
            rows = await asker.rows(2)
    finally:
        await asyncio.to_thread(servers.stop)
    assert replies.kinds[-1] == Kind.END
    assert replies.text == "".join(words)
    assert [told(row) for row in rows] == [("completed", None, True)] * 2
    assert len(provider.calls) == 2


async def test_a_worker_that_cannot_start_says_so_in_one_line_of_its_log(tmp_path: Path) -> None:
    nowhere = "127.0.0.1:9"
    async with process(
        "workers",
        tmp_path,
        VALKEY_URL=f"redis://{nowhere}",
        DATABASE_URL=f"postgresql://nobody@{nowhere}/none",
        CLICKHOUSE_URL=f"http://{nowhere}",
        GATEWAY_SEAL_KEYS=base64.b64encode(bytes(32)).decode(),
        GATEWAY_MASTER_KEY="x" * 32,
    ) as worker:
        async with asyncio.timeout(30):
            assert await worker.child.wait() == 1
    (line,) = worker.log.read_text().splitlines()
    assert json.loads(line)["action"] == "worker_failed"
