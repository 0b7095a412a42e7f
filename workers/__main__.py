"""Starts a worker process: `python -m workers`."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable
from functools import partial

import structlog
import uvloop

from shared import log
from shared.attestation.roots import configured
from shared.clock import SystemClock
from shared.ids import new_id
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import SessionStore
from shared.postgres.catalog_watch import CatalogWatch
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import make_engine
from shared.seal import Seal
from shared.settings import Settings
from shared.valkey.keys import ShardKeys
from shared.valkey.process_metrics import ProcessMetrics
from shared.valkey.uploads import UploadReader
from workers.attestation.fetcher import Fetcher
from workers.attestation.sessions import Sessions
from workers.attestation.target import Targets
from workers.held import HeldJob
from workers.inference.handler import Inference
from workers.inference.routing import RoutingTable
from workers.outbox import Outbox
from workers.providers.http.pool import Limits
from workers.providers.registry import Credentials
from workers.providers.transport import UpstreamTransport
from workers.runner import Runner

BREAKER_PUBLISH_SECONDS = 1.0
GC_ALLOCATIONS = 50_000
"""Requests are freed by their counts; looking for cycles every 700 objects finds next to none."""


async def main(settings: Settings) -> None:
    clock, metrics, worker = SystemClock(), Metrics(), new_id()
    engine = make_engine(settings.database_url.get_secret_value(), "worker")
    catalogs = CatalogWatch(CatalogStore(engine))
    seal = Seal(settings.seal_key_bytes())
    transport = UpstreamTransport(limits=Limits(connections_per_origin=settings.worker_concurrency))
    credentials, fetcher = Credentials(settings.secret), Fetcher(transport)
    simulated = configured(settings.attestation_roots)
    targets = Targets(credentials, fetcher, simulated=simulated)
    table = RoutingTable(catalogs, credentials, clock, metrics, targets)
    sessions = Sessions(fetcher, SessionStore(engine), clock=clock, metrics=metrics)
    uploads = UploadReader.connect(settings.valkey_url.get_secret_value(), worker)
    inference = Inference(
        catalogs=table, transport=transport, seal=seal, clock=clock, metrics=metrics,
        uploads=uploads, sessions=sessions,
    )  # fmt: skip
    process_metrics = ProcessMetrics(
        url=settings.valkey_url.get_secret_value(), role="worker", process=worker,
        metrics=metrics, shards=settings.shards, clock=clock,
    )  # fmt: skip
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await catalogs.start()
        gc.collect()
        gc.freeze()  # what is alive now lives on; the collector need not look at it again
        gc.set_threshold(GC_ALLOCATIONS)
        async with process_metrics.publishing(), asyncio.TaskGroup() as group:
            loops = [group.create_task(catalogs.run()), group.create_task(_publish(table))]
            runners = [
                group.create_task(
                    _run_shard(settings, shard, worker, inference, seal, clock, metrics, stop)
                )
                for shard in range(settings.shards)
            ]
            await asyncio.wait(runners)
            for loop in loops:
                loop.cancel()
    finally:
        await transport.aclose()
        await uploads.close()
        await engine.dispose()
    structlog.get_logger().info("The worker has stopped", action="worker_stopped")


async def _run_shard(
    settings: Settings, shard: int, worker: str, inference: Inference, seal: Seal,
    clock: SystemClock, metrics: Metrics, stop: asyncio.Event,
) -> None:  # fmt: skip
    def handle(held: HeldJob, outbox: Outbox) -> Awaitable[None]:
        return inference.run(held, outbox, runner)

    runner = Runner(
        url=settings.valkey_url.get_secret_value(),
        keys=ShardKeys(shard),
        worker=worker,
        seal=seal,
        clock=clock,
        metrics=metrics,
        lease_seconds=settings.lease_seconds,
        inbox_lease_seconds=settings.inbox_lease_seconds,
        delta_window_seconds=settings.delta_window_ms / 1000,
        concurrency=max(1, settings.worker_concurrency // settings.shards),
        handle=handle,
        give_up=inference.give_up,
    )
    await runner.run(stop, settings.drain_seconds)


async def _publish(table: RoutingTable) -> None:
    while True:
        table.publish()
        await asyncio.sleep(BREAKER_PUBLISH_SECONDS)


if __name__ == "__main__":
    started = Settings()
    log.set_up("worker", started.log_level)
    logger = structlog.get_logger()
    try:
        started.seal_key_bytes()
        configured(started.attestation_roots)
    except (OSError, ValueError) as error:
        logger.error(str(error), action="not_configured")
        sys.exit(1)
    try:
        uvloop.run(partial(main, started)())
    except Exception:  # as a line of the log, like everything else; its supervisor tries again
        logger.exception("The worker cannot go on", action="worker_failed")
        sys.exit(1)
