"""The API process's inbox: one reader per shard, handing replies to the requests that wait."""

import asyncio
from collections.abc import Callable

import structlog

from api.waiter import Buffers, Waiter, Word
from shared.clock import Clock
from shared.errors import Internal, Overloaded, TimedOut
from shared.job import JobHeader
from shared.seal import Seal
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.inbox import InboxStream
from shared.valkey.keys import ShardKeys

BLOCK_MS = 1000
CONNECT_SECONDS = 1.0
SWEEP_SECONDS = 0.5
LATE_SECONDS = 1.0
"""Past the time a job may wait: its worker says so first, if there is one."""
GRACE_SECONDS = 5.0
"""Past a job's deadline: its worker answers first, with more to say than we can."""

log = structlog.get_logger()


class Inbox:
    """Reads one shard's replies for this process. `run` must be running for anything to arrive."""

    def __init__(
        self,
        *,
        url: str,
        keys: ShardKeys,
        process: str,
        seal: Seal,
        clock: Clock,
        lease_seconds: float,
        on_word: Callable[[str, Word], None],
        on_late: Callable[[Waiter], None],
    ) -> None:
        """`on_word` sends a word to a job's worker; `on_late` hears of jobs past their time to
        wait."""
        self._stream = InboxStream(keys, process, lease_seconds=lease_seconds)
        self._client = Client(url, name=f"api-inbox-{process[-8:]}", on_connect=self._stream.renew)
        self._leases = Client(url, name=f"api-lease-{process[-8:]}")
        self._seal = seal
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._on_word = on_word
        self._on_late = on_late
        self._waiters: dict[bytes, Waiter] = {}
        self._buffers = Buffers()

    def register(self, header: JobHeader) -> Waiter:
        """Opens a place for replies. Register, then send: an answer may come at once."""
        waiter = Waiter(
            header.request_id,
            lane=header.lane,
            seal=self._seal,
            waits_until=header.queue_deadline + LATE_SECONDS,
            give_up_at=header.deadline + GRACE_SECONDS,
            on_word=self._on_word,
            buffers=self._buffers,
        )
        self._waiters[header.request_id.encode()] = waiter
        return waiter

    def forget(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter.request_id.encode(), None)
        waiter.forget()

    def __len__(self) -> int:
        return len(self._waiters)

    async def connected(self, seconds: float) -> None:
        await self._client.connected(seconds)

    async def run(self) -> None:
        """Reads until cancelled; then gives the inbox up."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._client.run())
                group.create_task(self._leases.run())
                group.create_task(self._read())
                group.create_task(self._renew())
                group.create_task(self._sweep())
        finally:
            for waiter in list(self._waiters.values()):
                waiter.fail(Overloaded("The gateway is shutting down.", code="draining"))

    async def _read(self) -> None:
        while True:
            try:
                await self._client.connected(CONNECT_SECONDS)
                for fields in await self._stream.read(self._client, BLOCK_MS):
                    self._dispatch(fields)
            except (ValkeyAway, TimeoutError):
                continue  # the client connects again by itself
            except CommandRefused as error:
                log.error("The inbox cannot be read", action="inbox_refused", error=str(error))
                await asyncio.sleep(SWEEP_SECONDS)

    def _dispatch(self, fields: list[bytes]) -> None:
        pairs = iter(fields)
        for request_id, frame in zip(pairs, pairs, strict=True):
            waiter = self._waiters.get(request_id)
            if waiter is None:
                continue  # its client has left
            try:
                waiter.feed(frame)
            except Exception as error:  # noqa: BLE001  one broken reply must not stop the others
                log.error("A reply could not be read", action="reply_broken", error=repr(error))
                waiter.fail(Internal("The answer could not be read."))

    async def _renew(self) -> None:
        while True:
            try:
                if self._leases.is_connected:
                    await self._stream.renew(self._leases)
            except (ValkeyAway, CommandRefused) as error:
                log.warning(
                    "The inbox lease was not renewed", action="lease_late", error=str(error)
                )
            await asyncio.sleep(self._lease_seconds / 4)

    async def _sweep(self) -> None:
        """One timer for every waiter's deadline and keep-alive, instead of one each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now, quiet = self._clock.now(), loop.time()
            for waiter in list(self._waiters.values()):
                if now > waiter.give_up_at and waiter.ended:
                    waiter.drop()  # it was told, and has not even read that
                elif now > waiter.give_up_at:
                    waiter.fail(TimedOut("The request took too long.", code="deadline_exceeded"))
                elif now > waiter.waits_until:
                    waiter.waits_until = waiter.give_up_at  # asked once
                    self._on_late(waiter)
                else:
                    waiter.keep_alive(quiet)

    async def close(self) -> None:
        """Gives up the lease, so that workers stop at once what nobody waits for."""
        if self._leases.is_connected:
            await self._stream.close(self._leases)
