"""The background process: an arq worker with the chores that exist. `python -m workers.background`.

arq is for housekeeping only, never for a request, and its arguments are ids, never content. Jobs
travel as MessagePack: arq's own pickles would run what a stranger put into Valkey.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

import msgspec
import structlog
from arq.connections import RedisSettings
from arq.cron import CronJob
from arq.worker import Worker

from shared import log as logs
from shared.attestation.roots import configured
from shared.attestation.signing import receipt_key
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.user_spend import UserSpend
from shared.clock import SystemClock
from shared.ids import new_id
from shared.metrics import Metrics
from shared.postgres.engine import make_engine
from shared.postgres.windows import WindowStore
from shared.settings import Settings
from shared.valkey.client import Address, Client, ValkeyAway
from shared.valkey.events import EventStream
from shared.valkey.housekeeping import Housekeeper
from shared.valkey.keys import ShardKeys
from shared.valkey.plain import failures
from shared.valkey.process_metrics import ProcessMetrics
from workers.budget_events import BudgetEvents
from workers.budgets import BudgetChores
from workers.housekeeping import Housekeeping
from workers.ledger import LedgerChores
from workers.providers.registry import Credentials
from workers.receipts.service import Receipts
from workers.webhook import Webhook

DISTRIBUTION = "ollm-gateway"
RECONNECT_SECONDS = 1.0
CLOSE_SECONDS = 5.0
HEALTH_SECONDS = 60

log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder().decode


class Chores(Protocol):
    def jobs(self) -> list[CronJob]: ...


class Background:
    """Runs an arq worker, and a new one whenever Valkey was away: arq's ends with its connection."""

    def __init__(self, chores: Sequence[Chores], *, arq_url: str, drain_seconds: float) -> None:
        self._chores = chores
        self._arq = Address(arq_url)
        self._drain_seconds = drain_seconds
        self._stopping = asyncio.Event()
        self._worker: Worker | None = None

    async def run(self) -> None:
        """Works until `stop` was called."""
        away = False
        while not self._stopping.is_set():
            try:
                await self._work()
            except ValkeyAway as error:
                if not away:
                    log.warning(
                        "Valkey is away", action="store_away", store="valkey", reason=str(error)
                    )
                away = True
                await self._pause()
            else:
                away = False

    def stop(self) -> None:
        """Takes no further job; those that run get `drain_seconds`."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.handle_sig_wait_for_completion(signal.SIGTERM)

    async def _work(self) -> None:
        worker = self._worker = self._new_worker()
        try:
            with failures():
                await worker.async_run()
        except asyncio.CancelledError:
            # arq ends by cancelling its own main task, which is not a cancellation of ours.
            if not self._stopping.is_set():
                raise
        finally:
            self._worker = None
            with contextlib.suppress(ValkeyAway), failures():
                async with asyncio.timeout(CLOSE_SECONDS):
                    await worker.close()

    def _new_worker(self) -> Worker:
        arq = self._arq
        return Worker(
            cron_jobs=[job for chores in self._chores for job in chores.jobs()],
            redis_settings=RedisSettings(
                host=arq.host,
                port=arq.port,
                unix_socket_path=arq.path,
                database=arq.database,
                username=arq.username or None,
                password=arq.password or None,
                ssl=arq.tls is not None,
                conn_retries=0,
            ),
            handle_signals=False,
            # arq takes 0 as "cancel at once", and whole seconds only.
            job_completion_wait=max(1, int(self._drain_seconds)),
            health_check_interval=HEALTH_SECONDS,
            job_serializer=_encode,
            job_deserializer=_decode,
        )

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECONNECT_SECONDS):
                await self._stopping.wait()


async def main() -> None:
    settings, process = Settings(), new_id()
    logs.set_up("background", settings.log_level)
    structlog.contextvars.bind_contextvars(process=process)
    try:
        key = receipt_key(settings.receipt_seeds(), settings.seal_key_bytes())
        simulated, webhook = configured(settings.attestation_roots), webhook_of(settings)
    except (OSError, ValueError) as error:
        log.error(str(error), action="not_configured")
        sys.exit(1)
    valkey_url = settings.valkey_url.get_secret_value()
    shards = [ShardKeys(shard) for shard in range(settings.shards)]
    keeper, metrics = Housekeeper.connect(valkey_url, shards, process), Metrics()
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value())
    engine = make_engine(settings.database_url.get_secret_value(), "background")
    windows = WindowStore(engine)
    client = Client(valkey_url, name=f"background-{process[-8:]}")
    events = BudgetEvents(EventStream(client, shards, process), windows, webhook, metrics)
    receipts = Receipts(
        client=client,
        shards=shards,
        process=process,
        engine=engine,
        credentials=Credentials(settings.secret),
        key=key,
        simulated=simulated,
        clock=SystemClock(),
        metrics=metrics,
        lease_seconds=settings.lease_seconds,
        gateway_version=version(DISTRIBUTION),
    )
    background = Background(
        [
            Housekeeping(keeper, metrics),
            LedgerChores(clickhouse, metrics, keep_days=settings.ledger_keep_days),
            BudgetChores(client, shards, windows, UserSpend(clickhouse), metrics, SystemClock()),
        ],
        arq_url=settings.arq_url.get_secret_value() if settings.arq_url else valkey_url,
        drain_seconds=settings.drain_seconds,
    )
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, background.stop)
    log.info("The background process has started", action="started")
    published = ProcessMetrics(
        url=valkey_url,
        role="background",
        process=process,
        metrics=metrics,
        shards=settings.shards,
        clock=SystemClock(),
    )
    try:
        async with published.publishing(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in (client.run(), events.run(), receipts.run())]
            await background.run()
            for task in tasks:
                task.cancel()
    finally:
        await receipts.close()
        await keeper.close()
        await clickhouse.close()
        await engine.dispose()
        if webhook is not None:
            await webhook.close()
    log.info("The background process has stopped", action="stopped")


def webhook_of(settings: Settings) -> Webhook | None:
    """None where no address is set. Raises ValueError for an address or a secret that is none."""
    url = settings.webhook_url.get_secret_value()
    if not url:
        return None
    return Webhook(
        url,
        settings.webhook_secret.get_secret_value(),
        allow_private=settings.webhook_allow_private,
        clock=SystemClock(),
    )


if __name__ == "__main__":
    asyncio.run(main())
