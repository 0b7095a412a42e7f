"""The metering process: `python -m workers.metering`."""

import asyncio
import gc
import signal

import structlog

from shared import log as logs
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.spend import SpendTable
from shared.clock import SystemClock
from shared.ids import new_id
from shared.metrics import Metrics
from shared.settings import Settings
from shared.valkey.keys import ShardKeys
from shared.valkey.process_metrics import ProcessMetrics
from shared.valkey.spend import SpendStream
from workers.metering.batch import Batch
from workers.metering.sink import Sink

GC_ALLOCATIONS = 500_000
"""A batch is some 50,000 objects, all freed by their counts. Looking for cycles every 700 of them,
Python's default, took a third of the CPU per row and never found one."""

log = structlog.get_logger()


async def run(settings: Settings, *, process: str, metrics: Metrics, stop: asyncio.Event) -> None:
    """Moves rows until `stop` is set."""
    clock = SystemClock()
    shards = [ShardKeys(shard) for shard in range(settings.shards)]
    stream = SpendStream.connect(settings.valkey_url.get_secret_value(), shards, process)
    store = ClickHouse(settings.clickhouse_url.get_secret_value())
    sink = Sink(
        stream,
        SpendTable(store),
        Batch(clock=clock),
        metrics=metrics,
        clock=clock,
        lease_seconds=settings.lease_seconds,
        drain_seconds=settings.drain_seconds,
    )
    try:
        await sink.run(stop)
    finally:
        await stream.close()
        await store.close()


async def main() -> None:
    gc.set_threshold(GC_ALLOCATIONS)
    settings, process, stop = Settings(), new_id(), asyncio.Event()
    logs.set_up("metering", settings.log_level)
    structlog.contextvars.bind_contextvars(process=process)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    log.info("Metering has started", action="started")
    metrics = Metrics()
    published = ProcessMetrics(
        url=settings.valkey_url.get_secret_value(),
        role="metering",
        process=process,
        metrics=metrics,
        shards=settings.shards,
        clock=SystemClock(),
    )
    async with published.publishing():
        await run(settings, process=process, metrics=metrics, stop=stop)
    log.info("Metering has stopped", action="stopped")


if __name__ == "__main__":
    asyncio.run(main())
