"""The merged metrics on a real Valkey."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.clock import StillClock, SystemClock
from shared.metrics import Metrics
from shared.valkey.inspect import live_processes, open_store
from shared.valkey.keys import ShardKeys
from shared.valkey.process_metrics import STORE_GAUGES, ProcessMetrics


def process(url: str, role: str, name: str, *, shards: int = 1) -> ProcessMetrics:
    return ProcessMetrics(
        url=url, role=role, process=name, metrics=Metrics(), shards=shards, clock=SystemClock()
    )


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


async def test_one_scrape_shows_every_process_with_its_role(valkey_db):
    api, worker = process(valkey_db, "api", "a1"), process(valkey_db, "worker", "w1")
    api._metrics.requests.labels("/v1/models", "GET", "200").inc(3)
    worker._metrics.jobs.labels("completed").inc(5)
    worker._metrics.ttft_seconds.labels("sim").observe(0.02)
    await worker.renew()
    await worker.publish()
    await api.renew()
    text = await api.collect()
    found = samples(text)
    one = labels(route="/v1/models", method="GET", status="200", role="api", process="a1")
    assert found["gateway_requests_total", one] == 3
    two = labels(outcome="completed", role="worker", process="w1")
    assert found["gateway_jobs_total", two] == 5
    three = labels(provider="sim", role="worker", process="w1", le="0.025")
    assert found["gateway_time_to_first_token_seconds_bucket", three] == 1
    assert (
        samples(await worker.collect())["gateway_jobs_total", two] == 5
    )  # whichever process is asked
    await api.close()
    await worker.close()


async def test_each_family_is_described_once(valkey_db):
    everyone = [process(valkey_db, "worker", f"w{number}") for number in range(3)]
    for each in everyone:
        each._metrics.jobs.labels("completed").inc()
        await each.renew()
        await each.publish()
    text = (await everyone[0].collect()).decode()
    described = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(described) == len(set(described))
    assert described.count("# TYPE gateway_jobs_total counter") == 1
    assert "_created" not in text
    assert text.count("gateway_jobs_total{") == 3
    for each in everyone:
        await each.close()


async def test_the_stores_gauges_come_from_the_scrape_once_per_shard(valkey_db):
    api, worker = process(valkey_db, "api", "a1", shards=2), process(valkey_db, "worker", "w1")
    async with open_store(valkey_db) as store:
        await store.xadd(ShardKeys(1).lane("flex").decode(), {"a": "b"})
        await store.set(ShardKeys(0).sealed_bytes.decode(), 77)
        await store.xadd(ShardKeys(1).receipts.decode(), {"t": "a"})
    await worker.renew()
    await worker.publish()
    found = samples(await api.collect())
    assert found["gateway_lane_depth", labels(shard="1", lane="flex")] == 1
    assert found["gateway_lane_depth", labels(shard="0", lane="flex")] == 0
    assert 0 <= found["gateway_lane_oldest_seconds", labels(shard="1", lane="flex")] < 60
    assert found["gateway_sealed_bytes", labels(shard="0")] == 77
    assert found["gateway_receipt_backlog", labels(shard="1")] == 1
    gauges = [key for key in found if key[0] in STORE_GAUGES]
    assert all("process" not in dict(key[1]) for key in gauges)
    await api.close()
    await worker.close()


async def test_a_process_that_left_is_not_shown(valkey_db):
    api, worker = process(valkey_db, "api", "a1"), process(valkey_db, "worker", "w1")
    worker._metrics.jobs.labels("completed").inc()
    await worker.renew()
    await worker.publish()
    assert b'process="w1"' in await api.collect()
    await worker.close()
    assert b'process="w1"' not in await api.collect()
    await api.close()


async def test_what_a_process_published_passes_by_itself(valkey_db):
    worker = process(valkey_db, "worker", "w1")
    await worker.publish()
    async with open_store(valkey_db) as store:
        seconds = await store.ttl(ShardKeys(0).metrics("w1").decode())
    assert 0 < seconds <= 15
    await worker.close()


async def test_the_loop_registers_and_publishes_without_being_asked(valkey_db):
    worker, api = process(valkey_db, "worker", "w1"), process(valkey_db, "api", "a1")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        async with asyncio.timeout(5):
            while b'process="w1"' not in await api.collect():  # noqa: ASYNC110 - another's state
                await asyncio.sleep(0.05)
        running.cancel()
    async with open_store(valkey_db) as store:
        assert (await live_processes(store))["w1"].role == "worker"
    await worker.close()
    await api.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0"])
async def test_with_valkey_away_a_process_still_shows_its_own(url):
    lonely = ProcessMetrics(
        url=url, role="api", process="a1", metrics=Metrics(), shards=1, clock=StillClock()
    )
    lonely._metrics.client_disconnects.inc(2)
    text = await lonely.collect()
    assert b'gateway_client_disconnects_total{process="a1",role="api"} 2.0' in text
    assert not await lonely.is_up()
    await lonely.close()
