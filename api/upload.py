"""A file on its way from a client to the queue: chunk by chunk, sealed, no faster than it is read."""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from api.admit import Gate
from api.body import ClientLeft
from shared.errors import Overloaded
from shared.seal import Seal
from shared.upload import End, binding, encode_end
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.uploads import WINDOW_BYTES, Chunk, UploadWriter

ASK_AGAIN_SECONDS = 2.0
"""How long a lost chunk waits for a new connection."""
FIRST_LOOK_SECONDS = 0.01
LAST_LOOK_SECONDS = 0.25
"""Between two looks whether the worker has caught up: doubling, from the one to the other."""
RETRY_SECONDS = 0.1
MOST_AT_ONCE = 512
"""Files of one process that are coming in: each holds about a megabyte."""
DROPS_WAITING = 100_000
SHARE = 2
"""Files may be one half of what may be sealed, and those of one tenant that wait for their model one
half of that: documents must always find room, and other tenants too."""
UNBOUNDED = 1 << 53

log = structlog.get_logger()


class Uploads:
    """Of one process. `run` must be running: it takes off the queue what is done with."""

    def __init__(self, gate: Gate, seal: Seal) -> None:
        self._gate = gate
        self._seal = seal
        self._open = 0
        self._kept: Counter[str] = Counter()
        self._done: asyncio.Queue[tuple[Client, UploadWriter]] = asyncio.Queue(DROPS_WAITING)

    def begin(
        self, tenant: str, request_id: str, *, max_sealed_bytes: int, is_gone: Callable[[], bool]
    ) -> "Upload":
        """Call `end` with it afterwards, whatever happens. `is_gone`: the client has left."""
        client, keys = self._gate.queue_of(tenant)
        return Upload(
            self,
            client,
            UploadWriter(keys, request_id),
            self._seal,
            request_id,
            tenant=tenant,
            most_sealed=max_sealed_bytes // SHARE,
            is_gone=is_gone,
        )

    def take_place(self) -> None:
        """For a file whose first bytes are here. Raises Overloaded."""
        if self._open >= MOST_AT_ONCE:
            raise Overloaded("Too many uploads at once; try again shortly.", code="queue_full")
        self._open += 1

    def count_kept(self, tenant: str, size: int, most: int) -> None:
        """Raises Overloaded."""
        if self._kept[tenant] + size > most:
            raise _no_room()
        self._kept[tenant] += size

    def end(self, upload: "Upload") -> None:
        """Its request has ended: what is left of it goes. Returns at once; `run` does it."""
        self._open -= upload.has_place
        self._kept[upload.tenant] -= upload.kept_bytes
        if not self._kept[upload.tenant]:
            del self._kept[upload.tenant]
        if upload.number:
            self._drop_later(upload.client, upload.writer)

    def _drop_later(self, client: Client, writer: UploadWriter) -> None:
        if not self._done.full():  # else the sweep finds it
            self._done.put_nowait((client, writer))

    async def run(self) -> None:
        while True:
            client, writer = await self._done.get()
            try:
                await writer.drop(client)
            except ValkeyAway:
                self._drop_later(client, writer)
                await asyncio.sleep(RETRY_SECONDS)
            except CommandRefused as error:
                log.error("An upload was not removed", action="drop_refused", error=str(error))


class Upload:
    """One request's."""

    def __init__(
        self,
        uploads: Uploads,
        client: Client,
        writer: UploadWriter,
        seal: Seal,
        request_id: str,
        *,
        tenant: str,
        most_sealed: int,
        is_gone: Callable[[], bool],
    ) -> None:
        """`most_sealed`: bytes that the shard may hold when a chunk is added."""
        self.client = client
        self.writer = writer
        self.tenant = tenant
        self.number = 0
        """Of the last chunk."""
        self.has_place = False
        self.kept_bytes = 0
        self._uploads = uploads
        self._seal = seal
        self._request_id = request_id
        self._most_sealed = most_sealed
        self._is_gone = is_gone

    def take_place(self) -> None:
        """Once there is something of the file. Raises Overloaded."""
        if not self.has_place:
            self._uploads.take_place()
            self.has_place = True

    async def keep(self, data: bytes) -> None:
        """Adds a chunk that nobody reads yet: its job cannot be admitted. Raises Overloaded."""
        chunk = self._next(data, is_end=False)
        size = len(chunk.sealed)
        self._uploads.count_kept(self.tenant, size, self._most_sealed // SHARE)
        self.kept_bytes += size
        if await self._ask(chunk, UNBOUNDED) != "ok":
            raise _no_room()

    async def send(self, data: bytes) -> None:
        """Adds a chunk; waits while the worker is behind. Raises Overloaded, ClientLeft."""
        await self._send(self._next(data, is_end=False))

    async def finish(self, end: End) -> None:
        """Marks the upload as complete. Raises as `send`."""
        await self._send(self._next(encode_end(end), is_end=True))

    def _next(self, data: bytes, *, is_end: bool) -> Chunk:
        self.number += 1
        bound_to = binding(self._request_id, self.number, is_end=is_end)
        return Chunk(self.number, self._seal.seal(data, bound_to), is_end)

    async def _send(self, chunk: Chunk) -> None:
        """Bounded by the job: it ends, or goes on taking."""
        pause = FIRST_LOOK_SECONDS
        while (outcome := await self._ask(chunk, WINDOW_BYTES)) != "ok":
            if outcome == "gone":
                raise Overloaded("The upload was given up.", code="queue_full")
            # Looking costs a few bytes, asking again the whole chunk.
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_LOOK_SECONDS)
                if self._is_gone():
                    raise ClientLeft
                if await self._has_room(len(chunk.sealed)):
                    break

    async def _has_room(self, size: int) -> bool:
        try:
            waiting = await self.writer.waiting(self.client)
        except ValkeyAway:
            return True  # asking waits for it to come back
        return not waiting or waiting + size <= WINDOW_BYTES

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


def _no_room() -> Overloaded:
    return Overloaded("The queue holds too much data; try again shortly.", code="queue_full")
