"""Everything in the background process that receipts need, wired."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

import structlog

from shared.attestation.roots import Roots
from shared.attestation.signing import ReceiptKey
from shared.catalog_checks import CatalogInvalid
from shared.clock import Clock
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import SessionStore
from shared.postgres.catalog_watch import CatalogWatch, NoCatalog
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import STORE_ERRORS, Engine
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import TransparencyLog
from shared.valkey.client import Client
from shared.valkey.keys import ShardKeys
from shared.valkey.receipts import ReceiptStream
from workers.attestation.fetcher import Fetcher
from workers.attestation.sessions import Sessions
from workers.attestation.target import Targets
from workers.providers.registry import Credentials
from workers.providers.transport import UpstreamTransport
from workers.receipts.addressees import Addressees
from workers.receipts.collector import Collector
from workers.receipts.maker import Maker
from workers.receipts.stored_sessions import StoredSessions
from workers.receipts.tree import Tree
from workers.receipts.writer import Writer

AGAIN_SECONDS = 1.0

log = structlog.get_logger()


class Receipts:
    """Of one process. Connects to nothing before `run`."""

    def __init__(
        self,
        *,
        client: Client,
        shards: Sequence[ShardKeys],
        process: str,
        engine: Engine,
        credentials: Credentials,
        key: ReceiptKey,
        simulated: Roots,
        clock: Clock,
        metrics: Metrics,
        lease_seconds: float,
        gateway_version: str,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`ssl_context`: by default what the system trusts."""
        self._transport = UpstreamTransport(ssl_context=ssl_context)
        self._catalogs = CatalogWatch(CatalogStore(engine))
        fetcher, store = Fetcher(self._transport), SessionStore(engine)
        receipts = ReceiptStore(engine)
        self._stream = ReceiptStream(client, shards, process)
        sessions = Sessions(fetcher, store, clock=clock, metrics=metrics)
        maker = Maker(
            addressees=Addressees(
                self._catalogs, Targets(credentials, fetcher, simulated=simulated)
            ),
            sessions=sessions,
            stored=StoredSessions(store),
            key=key,
            clock=clock,
            gateway_version=gateway_version,
        )
        self._collector = Collector(
            stream=self._stream,
            store=receipts,
            maker=maker,
            writer=Writer(receipts),
            lease_seconds=lease_seconds,
            clock=clock,
            metrics=metrics,
        )
        self._tree = Tree(TransparencyLog(engine, key, clock), metrics)

    async def run(self) -> None:
        """Until cancelled."""
        await self._started()
        async with asyncio.TaskGroup() as group:
            for loop in (self._catalogs.run, self._collector.run, self._tree.run):
                group.create_task(loop())

    async def close(self) -> None:
        await self._transport.aclose()

    async def _started(self) -> None:
        """Other chores go on while the catalog cannot be had."""
        while True:
            with contextlib.suppress(NoCatalog, CatalogInvalid, *STORE_ERRORS):
                return await self._catalogs.start()
            await asyncio.sleep(AGAIN_SECONDS)
