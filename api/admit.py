"""Admits requests as jobs, and cancels them: the API's side of the queue."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from api.account_loader import AccountLoader
from api.inbox import Inbox
from api.waiter import Waiter, Word
from shared.account import Account
from shared.catalog import Catalog
from shared.clock import Clock
from shared.document import QueueLimits
from shared.errors import GatewayError, NotPermitted, Overloaded, TimedOut, TooManyRequests
from shared.job import JobHeader
from shared.metrics import Metrics
from shared.seal import Seal
from shared.spend import SpendReader
from shared.valkey.accounts import Accounts
from shared.valkey.admission import Admission, Admitted
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.keys import ShardKeys, shard_of
from shared.valkey.terms import Terms, Unloaded

ASK_AGAIN_SECONDS = 2.0
"""How long a lost admission waits for a new connection before it is cancelled by id."""
MAX_CANCELS_WAITING = 100_000
"""Cancels kept while Valkey is away; beyond it the inbox lease ends the jobs anyway."""
MOST_LOADS = 10
"""Of accounts, for one admission: each has two at most, and a window may be set anew meanwhile."""

Ask = Callable[[], Awaitable[Admitted]]

log = structlog.get_logger()


class Shard:
    """One shard's connections in this process."""

    def __init__(
        self,
        *,
        url: str,
        keys: ShardKeys,
        inbox: Inbox,
        name: str,
        ledger: SpendReader,
        clock: Clock,
    ) -> None:
        self.admission = Admission(keys)
        self.client = Client(url, name=name)
        self.inbox = inbox
        self.loader = AccountLoader(self.client, Accounts(keys), ledger, clock)


class Gate:
    """What a route needs of the queue: `admit`, then `cancel` or `finish`."""

    def __init__(
        self, *, url: str, process: str, shards: int, seal: Seal, clock: Clock, metrics: Metrics,
        inbox_lease_seconds: float, ledger: SpendReader,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self.process = process
        self._seal = seal
        self._metrics = metrics
        self._cancels: dict[str, tuple[Shard, str]] = {}
        self._cancel_wanted = asyncio.Event()
        self._words: asyncio.Queue[tuple[Shard, str, Word]] = asyncio.Queue(MAX_CANCELS_WAITING)
        self._late: asyncio.Queue[tuple[Shard, Waiter]] = asyncio.Queue(MAX_CANCELS_WAITING)
        self._shards = [
            self._shard(url, ShardKeys(k), seal, clock, inbox_lease_seconds) for k in range(shards)
        ]

    def _shard(
        self, url: str, keys: ShardKeys, seal: Seal, clock: Clock, lease_seconds: float
    ) -> Shard:
        inbox = Inbox(
            url=url,
            keys=keys,
            process=self.process,
            seal=seal,
            clock=clock,
            lease_seconds=lease_seconds,
            on_word=lambda request_id, word: self._say(keys.shard, request_id, word),
            on_late=lambda waiter: self._expire_later(keys.shard, waiter),
        )
        name = f"api-{self.process[-8:]}"
        return Shard(url=url, keys=keys, inbox=inbox, name=name, ledger=self._ledger, clock=clock)

    @property
    def open_requests(self) -> int:
        return sum(len(shard.inbox) for shard in self._shards)

    @property
    def is_connected(self) -> bool:
        return all(shard.client.is_connected for shard in self._shards)

    async def admit(
        self, header: JobHeader, body: bytes, catalog: Catalog, terms: Terms | None = None
    ) -> Waiter:
        """Seals, holds and enqueues; the waiter gets the replies.

        Raises Overloaded; with `terms` TooManyRequests and NotPermitted (a spent budget) too. Call `finish` (or `cancel`) with the waiter afterwards, whatever happens.
        """
        shard = self._shard_of(header.tenant)
        waiter = shard.inbox.register(header)
        sealed = self._seal.seal(body, b"job:" + header.request_id.encode())
        outcome = "error"
        try:
            try:
                admitted = await self._ask(shard, header, sealed, catalog.queue, terms)
            except Unloaded as missing:
                ask = partial(self._ask, shard, header, sealed, catalog.queue, terms)
                admitted = await self._when_loaded(ask, shard, missing.account, catalog)
            outcome, waiter.standing = admitted
        except (Overloaded, TooManyRequests, NotPermitted) as error:
            outcome = error.code or "refused"
            self._count(error)
            raise
        except CommandRefused as error:
            # Chiefly OOM: then nothing was written. Otherwise nobody knows.
            log.error("An admission was refused", action="admission_refused", error=str(error))
            self._cancel_later(shard, header)
            raise Overloaded("The queue cannot take the request.", code="queue_full") from error
        except asyncio.CancelledError:
            self.cancel(waiter, header)
            raise
        finally:
            self._metrics.admissions.labels(header.lane, outcome).inc()
            if outcome not in {"admitted", "duplicate"}:
                shard.inbox.forget(waiter)
        return waiter

    def _count(self, error: GatewayError) -> None:
        if isinstance(error, TooManyRequests):
            self._metrics.rate_limit_hits.inc()
        elif isinstance(error, NotPermitted):
            self._metrics.budget_exceeded.inc()

    async def _when_loaded(
        self, ask: Ask, shard: Shard, account: Account, catalog: Catalog
    ) -> Admitted:
        """Where an account's spend is not known: loads it, and asks again."""
        for _ in range(MOST_LOADS):
            await shard.loader.load(account, job_seconds=catalog.longest_seconds + 60)
            try:
                return await ask()
            except Unloaded as missing:
                account = missing.account
        raise Overloaded("What was spent cannot be read.", code="store_unavailable")

    async def _ask(
        self,
        shard: Shard,
        header: JobHeader,
        sealed: bytes,
        limits: QueueLimits,
        terms: Terms | None,
    ) -> Admitted:
        try:
            return await shard.admission.admit(shard.client, header, sealed, limits, terms)
        except ValkeyAway:
            pass
        # The answer was lost, or there was no connection. Asking again is safe: the request id
        # makes the script let a job in once only.
        try:
            await shard.client.connected(ASK_AGAIN_SECONDS)
            return await shard.admission.admit(shard.client, header, sealed, limits, terms)
        except (ValkeyAway, TimeoutError) as error:
            self._cancel_later(shard, header)
            raise Overloaded("The queue cannot be reached.", code="store_unavailable") from error

    async def probe(self, request_id: str, terms: Terms, tenant: str) -> None:
        """Counts a request that is refused for another reason against its accounts' limits.

        Raises RateLimited. While the queue is away nothing is counted: the other reason stands.
        """
        shard = self._shard_of(tenant)
        try:
            await shard.admission.probe(shard.client, request_id, terms)
        except (ValkeyAway, CommandRefused) as error:
            log.warning("A request was not counted", action="probe_lost", error=str(error))
        except TooManyRequests as error:
            self._count(error)
            raise

    def finish(self, waiter: Waiter, header: JobHeader) -> None:
        """The replies are complete, or failed: stop listening."""
        self._shard_of(header.tenant).inbox.forget(waiter)

    def cancel(self, waiter: Waiter, header: JobHeader) -> None:
        """The client left: stop the job wherever it is. Returns at once; `run` does it."""
        shard = self._shard_of(header.tenant)
        shard.inbox.forget(waiter)
        self._cancel_later(shard, header)

    def _cancel_later(self, shard: Shard, header: JobHeader) -> None:
        if len(self._cancels) < MAX_CANCELS_WAITING:
            self._cancels[header.request_id] = (shard, header.lane)
            self._cancel_wanted.set()

    def _say(self, shard: int, request_id: str, word: Word) -> None:
        if not self._words.full():
            self._words.put_nowait((self._shards[shard], request_id, word))

    def _expire_later(self, shard: int, waiter: Waiter) -> None:
        if not self._late.full():
            self._late.put_nowait((self._shards[shard], waiter))

    def queue_of(self, tenant: str) -> tuple[Client, ShardKeys]:
        """Where a tenant's jobs are, and the way there."""
        shard = self._shard_of(tenant)
        return shard.client, shard.admission.keys

    def _shard_of(self, tenant: str) -> Shard:
        return self._shards[shard_of(tenant, len(self._shards))]

    async def ready(self, seconds: float) -> None:
        """Waits until replies can arrive and jobs can be sent. Raises TimeoutError."""
        for shard in self._shards:
            await shard.inbox.connected(seconds)
            await shard.client.connected(seconds)

    async def run(self) -> None:
        """Keeps the connections, sends cancels. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            for shard in self._shards:
                group.create_task(shard.client.run())
                group.create_task(shard.inbox.run())
            group.create_task(self._send_cancels())
            group.create_task(self._send_words())
            group.create_task(self._expire())

    async def close(self) -> None:
        """The last step of a drain: sends the cancels still waiting, gives the inboxes up."""
        await self._flush_cancels()
        for shard in self._shards:
            await shard.inbox.close()

    async def _send_cancels(self) -> None:
        while True:
            await self._cancel_wanted.wait()
            self._cancel_wanted.clear()
            if not await self._flush_cancels():
                await asyncio.sleep(0.1)
                self._cancel_wanted.set()

    async def _flush_cancels(self) -> bool:
        """False when Valkey was away: what could not be sent stays for the next try.

        One that is wanted meanwhile is not waited for: it has set `_cancel_wanted` again.
        """
        waiting = list(self._cancels.items())
        results = await asyncio.gather(
            *(
                shard.admission.cancel(shard.client, request_id, lane)
                for request_id, (shard, lane) in waiting
            ),
            return_exceptions=True,
        )
        for (request_id, _), result in zip(waiting, results, strict=True):
            if not isinstance(result, ValkeyAway):
                self._cancels.pop(request_id, None)
            if isinstance(result, CommandRefused):
                log.error("A cancel was refused", action="cancel_refused", error=str(result))
        return not any(isinstance(result, ValkeyAway) for result in results)

    async def _send_words(self) -> None:
        while True:
            shard, request_id, word = await self._words.get()
            try:
                await shard.admission.notify(shard.client, request_id, word)
            except (ValkeyAway, CommandRefused) as error:
                # A lost pause is made up for by the buffer's bound.
                log.warning("A notice was not sent", action="notice_lost", error=str(error))

    async def _expire(self) -> None:
        """Takes jobs out of their lane that nobody has begun in time: there may be no worker."""
        while True:
            shard, waiter = await self._late.get()
            try:
                outcome = await shard.admission.cancel(
                    shard.client, waiter.request_id, waiter.lane, only_waiting=True
                )
            except (ValkeyAway, CommandRefused) as error:
                log.warning("A late job was not asked for", action="expire_lost", error=str(error))
                continue
            if outcome == "removed":
                waiter.fail(
                    TimedOut("The request waited too long in the queue.", code="queue_timeout")
                )
