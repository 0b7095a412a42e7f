"""The file that follows a job, taken off the queue chunk by chunk as it is sent on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

from shared.errors import Internal
from shared.seal import Seal, SealBroken
from shared.upload import End, binding, decode_end
from shared.valkey.client import ValkeyAway
from shared.valkey.uploads import Chunk, UploadReader
from workers.held import HeldJob

RETRY_SECONDS = 0.05

Outcome = TypeVar("Outcome")


class UploadSource:
    """One job's. Every wait is bounded by the job's own deadline, which cancels its task."""

    def __init__(self, held: HeldJob, reader: UploadReader, seal: Seal) -> None:
        self._held = held
        self._reader = reader
        self._seal = seal
        self.end: End | None = None
        """Once all of the file was read: what came after it."""
        self.is_waiting = False
        """For the client's next bytes: whatever goes wrong meanwhile is not the provider's fault."""
        self.bytes = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes. Raises Internal where a chunk is not what it should be."""
        claim, number = self._held.claim, 0
        while self.end is None:
            self.is_waiting = True  # and stays so where the wait is broken off
            chunk = await _until_answered(partial(self._reader.next, claim, number))
            self.is_waiting = False
            number += 1
            data = self._opened(chunk, number)
            await self._take(chunk)
            if chunk.is_end:
                self.end = decode_end(data)
            else:
                self.bytes += len(data)
                yield data

    async def _take(self, chunk: Chunk) -> None:
        """Taken, then sent: should this worker die between the two, the job has spoken, and nobody
        sends the rest of the file as if it were the whole."""
        self._held.consumed = True
        outcome = await _until_answered(partial(self._reader.take, self._held.claim, chunk))
        if outcome != "ok":
            self._held.lose()
            raise asyncio.CancelledError

    def _opened(self, chunk: Chunk, number: int) -> bytes:
        bound_to = binding(self._held.request_id, number, is_end=chunk.is_end)
        try:
            return self._seal.open(chunk.sealed, bound_to)
        except SealBroken as error:
            raise Internal("The upload could not be read by a worker.") from error


async def _until_answered(ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Asks again while Valkey is away: reading and taking may be repeated."""
    while True:
        try:
            return await ask()
        except ValkeyAway:
            await asyncio.sleep(RETRY_SECONDS)
