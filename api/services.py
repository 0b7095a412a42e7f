"""Everything a request may need, built once per process, opened and closed in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from api.access_log import AccessLog
from api.admit import Gate
from api.attested import Attested
from api.auth import Authenticator
from api.billing import Billing
from api.drain import Drain
from api.key_cache import KeyCache
from api.management import Management
from api.price_book import PriceBook
from api.providers import Availability
from api.relay import Relay
from api.store_checks import StoreChecks
from api.upload import Uploads
from api.user_cache import UserCache
from shared.clickhouse.client import ClickHouse
from shared.clock import Clock
from shared.metrics import Metrics
from shared.postgres.catalog_watch import CatalogWatch
from shared.postgres.engine import Engine
from shared.postgres.keys import KeyStore
from shared.valkey.process_metrics import ProcessMetrics

READY_SECONDS = 30.0
"""How long a start waits for the queue; a supervisor tries again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The collaborators of one API process. `running()` is their life."""

    process: str
    version: str
    clock: Clock
    metrics: Metrics
    drain: Drain
    engine: Engine
    clickhouse: ClickHouse
    catalogs: CatalogWatch
    prices: PriceBook
    keys: KeyStore
    key_cache: KeyCache
    user_cache: UserCache
    authenticator: Authenticator
    billing: Billing
    management: Management
    attested: Attested
    availability: Availability
    checks: StoreChecks
    process_metrics: ProcessMetrics
    access_log: AccessLog
    gate: Gate
    relay: Relay
    uploads: Uploads

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens, runs the loops for the length of the block, closes.

        Raises what a start can fail with, or an ExceptionGroup when a loop died.
        """
        try:
            # The catalog first: without one there is nothing to serve, and its read warms the pool.
            await self.catalogs.start()
            await self.prices.start()
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(loop)
                    for loop in (
                        self.gate.run(),
                        self.uploads.run(),
                        self.catalogs.run(),
                        self.prices.run(),
                        self.key_cache.run(),
                        self.user_cache.run(),
                        self.process_metrics.run(),
                        self.access_log.run(),
                    )
                ]
                await self.gate.ready(READY_SECONDS)
                log.info("The API process is ready", action="api_ready", process=self.process)
                yield
                # No request runs any more. Cancels that wait are sent and the inbox is given up
                # while there is still a connection to do it with; then the loops may end.
                await self.gate.close()
                for loop in loops:
                    loop.cancel()
        finally:
            await self.process_metrics.close()
            await self.clickhouse.close()
            await self.engine.dispose()
        log.info("The API process has stopped", action="api_stopped", process=self.process)
