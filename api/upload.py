"""A file on its way from a client to the queue: chunk by chunk, sealed, no faster than it is read."""

import asyncio

import structlog

from api.admit import Gate
from shared.errors import Overloaded
from shared.seal import Seal
from shared.upload import End, binding, encode_end
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.uploads import WINDOW_BYTES, Chunk, UploadWriter

ASK_AGAIN_SECONDS = 2.0
"""How long a lost chunk waits for a new connection."""
FULL_SECONDS = 0.02
"""Between two looks whether the worker has caught up."""
RETRY_SECONDS = 0.1
MOST_AT_ONCE = 512
"""Uploads of one process: each holds about a megabyte."""
DROPS_WAITING = 100_000

log = structlog.get_logger()


class Uploads:
    """Of one process. `run` must be running: it takes off the queue what is done with."""

    def __init__(self, gate: Gate, seal: Seal) -> None:
        self._gate = gate
        self._seal = seal
        self._open = 0
        self._done: asyncio.Queue[tuple[Client, UploadWriter]] = asyncio.Queue(DROPS_WAITING)

    def begin(self, tenant: str, request_id: str, *, most_sealed: int) -> "Upload":
        """Call `end` with it afterwards, whatever happens. Raises Overloaded."""
        if self._open >= MOST_AT_ONCE:
            raise Overloaded("Too many uploads at once; try again shortly.", code="queue_full")
        self._open += 1
        client, keys = self._gate.queue_of(tenant)
        writer = UploadWriter(keys, request_id)
        return Upload(client, writer, self._seal, request_id, most_sealed=most_sealed)

    def end(self, upload: "Upload") -> None:
        """Its request has ended: what is left of it goes. Returns at once; `run` does it."""
        self._open -= 1
        if upload.number and not self._done.full():  # else the sweep finds it
            self._done.put_nowait((upload.client, upload.writer))

    async def run(self) -> None:
        while True:
            client, writer = await self._done.get()
            try:
                await writer.drop(client)
            except ValkeyAway:
                self._done.put_nowait((client, writer))
                await asyncio.sleep(RETRY_SECONDS)
            except CommandRefused as error:
                log.error("An upload was not removed", action="drop_refused", error=str(error))


class Upload:
    """One request's."""

    def __init__(
        self, client: Client, writer: UploadWriter, seal: Seal, request_id: str, *, most_sealed: int
    ) -> None:
        """`most_sealed`: bytes that all jobs and uploads of the shard may hold together."""
        self.client = client
        self.writer = writer
        self.number = 0
        """Of the last chunk."""
        self._seal = seal
        self._request_id = request_id
        self._most_sealed = most_sealed

    async def keep(self, data: bytes) -> None:
        """Adds a chunk that nobody reads yet: its job cannot be admitted. Raises Overloaded."""
        await self._append(data, is_end=False, most_waiting=self._most_sealed)

    async def send(self, data: bytes) -> None:
        """Adds a chunk; waits while the worker is behind. Raises Overloaded."""
        await self._append(data, is_end=False, most_waiting=WINDOW_BYTES)

    async def finish(self, end: End) -> None:
        """Marks the upload as complete. Raises Overloaded."""
        await self._append(encode_end(end), is_end=True, most_waiting=WINDOW_BYTES)

    async def _append(self, data: bytes, *, is_end: bool, most_waiting: int) -> None:
        self.number += 1
        bound_to = binding(self._request_id, self.number, is_end=is_end)
        chunk = Chunk(self.number, self._seal.seal(data, bound_to), is_end)
        while (outcome := await self._ask(chunk, most_waiting)) == "full":  # noqa: ASYNC110
            await asyncio.sleep(FULL_SECONDS)  # bounded by the job, which ends or goes on
        if outcome != "ok":
            raise Overloaded("The queue holds too much data; try again shortly.", code="queue_full")

    async def _ask(self, chunk: Chunk, most_waiting: int) -> str:
        """A lost answer is asked for again: a chunk's number lets it in once only."""
        for _ in range(2):
            try:
                await self.client.connected(ASK_AGAIN_SECONDS)
                return await self.writer.append(
                    self.client, chunk, most_waiting=most_waiting, most_sealed=self._most_sealed
                )
            except (ValkeyAway, TimeoutError):
                continue
            except CommandRefused as error:  # chiefly OOM: nothing was written
                raise Overloaded("The queue cannot take it.", code="queue_full") from error
        raise Overloaded("The queue cannot be reached.", code="store_unavailable")
