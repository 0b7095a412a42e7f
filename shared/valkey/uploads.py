"""The stream of an upload: the API process appends sealed chunks, the job's worker takes them off."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from redis.asyncio import Redis

from shared.valkey.client import Client
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim
from shared.valkey.plain import CALL_SECONDS, failures, plain_client
from shared.valkey.scripts import APPEND_CHUNK, DROP_UPLOAD, TAKE_CHUNK

CHUNK, END = b"c", b"e"
WINDOW_BYTES = 4 << 20
"""What may wait for the worker. With that much under way neither side is held up by the other."""
BLOCK_MS = 1000


class Chunk(NamedTuple):
    number: int
    sealed: bytes
    is_end: bool


class UploadWriter:
    """The API's end, of one upload."""

    def __init__(self, keys: ShardKeys, request_id: str) -> None:
        self._request_id = request_id
        self._keys = (keys.upload(request_id), keys.uploads, keys.sealed_bytes)

    async def append(
        self, client: Client, chunk: Chunk, *, most_waiting: int, most_sealed: int
    ) -> str:
        """`ok`, `full` (the worker is behind), `memory_full` or `gone` (it was swept).

        May be repeated. Raises ValkeyAway.
        """
        field = END if chunk.is_end else CHUNK
        args = (self._request_id, chunk.number, field, chunk.sealed, most_waiting, most_sealed)
        answer: bytes = await client.script(APPEND_CHUNK, self._keys, args)
        return answer.decode()

    async def waiting(self, client: Client) -> int:
        """The bytes of it that the worker has not taken. Raises ValkeyAway."""
        state: bytes | None = await client.call(b"HGET", self._keys[1], self._request_id)
        return int((state or b"0 0 0").split()[1])

    async def drop(self, client: Client) -> None:
        """Once the request has ended, however. May be repeated. Raises ValkeyAway."""
        await client.script(DROP_UPLOAD, self._keys, (self._request_id,))


class UploadReader:
    """The worker's end, of all its uploads: each waits on a connection of its own."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    @classmethod
    def connect(cls, url: str, worker: str) -> "UploadReader":
        return cls(plain_client(url, name=f"worker-up-{worker[-8:]}"))

    async def close(self) -> None:
        await self._client.aclose()

    async def next(self, claim: Claim, after: int) -> Chunk:
        """Waits for the chunk behind `after`. Its caller bounds the wait. Raises ValkeyAway."""
        stream = claim.keys.upload(claim.request_id)
        while True:
            found = await self._ask(
                "XREAD", "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", stream, f"{after}-0"
            )
            if found:
                ((_, ((entry, fields),)),) = found
                ((field, sealed),) = fields.items()
                return Chunk(int(entry.partition(b"-")[0]), sealed, field == END)

    async def take(self, claim: Claim, chunk: Chunk) -> str:
        """Takes a chunk off before it is sent on: `ok`, `gone` or `fenced`. Raises ValkeyAway."""
        keys = claim.keys
        names = (
            keys.job(claim.request_id),
            keys.upload(claim.request_id),
            keys.uploads,
            keys.sealed_bytes,
        )
        answer: bytes = await self._ask(
            *("EVAL", TAKE_CHUNK.text, len(names), *names),
            *(claim.token, claim.request_id, f"{chunk.number}-0", len(chunk.sealed)),
        )
        return answer.decode()

    async def _ask(self, *words: bytes | str | int) -> Any:
        with failures():
            async with asyncio.timeout(CALL_SECONDS):
                execute: Callable[..., Awaitable[Any]] = self._client.execute_command
                return await execute(*words)
