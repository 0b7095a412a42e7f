"""The exact cache: an answer is kept for the very same request of the same tenant.

What a provider sent is kept, its usage taken out; a hit goes through the code that a live answer goes
through, so ids and names are of the request it answers. Names are HMACs, entries are sealed. A store
that fails costs a call at the provider, never the answer.
"""

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import httpx
import msgspec
from msgspec.structs import replace

from shared.clock import Clock
from shared.document import CacheBounds
from shared.job import CACHE_READS, CACHE_WRITES, JobHeader
from shared.reply import Answer
from shared.seal import Seal, SealBroken
from shared.spend import SpendRow
from shared.usage import Usage
from shared.valkey.cache import CacheEntries
from shared.valkey.client import CommandRefused, ValkeyAway
from workers.inference.attempt import Attempt
from workers.inference.meter import Meter
from workers.inference.recording import Recording
from workers.inference.routing import Route
from workers.inference.upstream_errors import AttemptFailed

GET_SECONDS = 0.5
"""A lookup takes less than a millisecond; a call at the provider is the better choice soon after."""
PUT_SECONDS = 2.0
STORE_FAILED = (ValkeyAway, CommandRefused, TimeoutError)
PUTS_AT_ONCE = 64
"""Of one process: their jobs are settled, so nothing else bounds them."""
NO_USAGE: dict[str, dict[str, int]] = {
    "chat.completions": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "embeddings": {"prompt_tokens": 0, "total_tokens": 0},
}
"""By the endpoints whose answers may be kept."""
HEADER = "x-ollm-cache"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""As the API sends them with a live stream."""
EVENT_STREAM = "text/event-stream; charset=utf-8"

NULL = msgspec.Raw(b"null")

_encode_json = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A kept answer. Fields are added at the end only, and are optional."""

    stored_at: float
    """Epoch seconds."""
    pieces: list[bytes]
    """As of a `Recording`."""


_decode_entry = msgspec.msgpack.Decoder(Entry).decode


@runtime_checkable
class Replays(Protocol):
    """An exchange whose answers may be kept: what it reads it adds to `attempt.recording`."""

    def request(self, route: Route, attempt: Attempt) -> httpx.Request: ...

    def replay(self, pieces: Sequence[bytes], route: Route, attempt: Attempt) -> bytes:
        """The client's whole text, made of what was recorded earlier. Raises AttemptFailed."""
        ...

    def is_complete(self, pieces: Sequence[bytes]) -> bool:
        """Whether what was recorded is all that was asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A kept answer as this request gets it, and its spend row."""

    answer: Answer
    row: SpendRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What the jobs of one process use of the cache, whatever their shard."""

    seal: Seal
    clock: Clock
    meter: Meter
    name_key: bytes
    puts: "Puts"

    def of_job(
        self, header: JobHeader, exchange: Replays, entries: CacheEntries, bounds: CacheBounds
    ) -> "JobCache":
        return JobCache(self, header, exchange, entries, bounds)


class Puts:
    """Those under way in this process."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Whether there is room for one more, for the length of the block."""
        may_go = self._count < PUTS_AT_ONCE
        self._count += may_go
        try:
            yield may_go
        finally:
            self._count -= may_go


class JobCache:
    """One job's use of the cache; there is none for a job that has it off."""

    def __init__(
        self,
        shared: Cache,
        header: JobHeader,
        exchange: Replays,
        entries: CacheEntries,
        bounds: CacheBounds,
    ) -> None:
        self._shared = shared
        self._header = header
        self._exchange = exchange
        self._entries = entries
        self._bounds = bounds
        is_known = header.endpoint in NO_USAGE
        self._reads = is_known and header.cache in CACHE_READS
        self._writes = is_known and header.cache in CACHE_WRITES and not header.dryrun

    @property
    def headers(self) -> dict[str, str]:
        """Of a whole answer that the provider had to give."""
        return {HEADER: "miss"} if self._reads else {}

    # ---- reading

    async def find(self, route: Route, attempt: Attempt) -> Hit | None:
        """What is kept for this request on this route. `attempt` must be given to nobody else."""
        if not self._reads:
            return None
        try:
            outcome, hit = await self._looked_up(route, attempt)
        except (*STORE_FAILED, SealBroken, msgspec.DecodeError, AttemptFailed):
            outcome, hit = "error", None  # the provider is asked instead; the metric counts it
            self._reads = False  # nor is the store asked for the next route
        self._shared.meter.looked_up(outcome)
        return hit

    async def _looked_up(self, route: Route, attempt: Attempt) -> tuple[str, Hit | None]:
        name = self._name(route, attempt)
        async with asyncio.timeout(GET_SECONDS):
            sealed = await self._entries.get(name)
        if sealed is None:
            return "miss", None
        entry = _decode_entry(self._shared.seal.open(sealed, _binding(name)))
        if self._is_stale(entry):
            return "stale", None
        return "hit", self._hit(self._exchange.replay(entry.pieces, route, attempt), attempt)

    def _is_stale(self, entry: Entry) -> bool:
        most = self._header.cache_max_age
        return most is not None and self._shared.clock.now() - entry.stored_at > most

    def _hit(self, body: bytes, attempt: Attempt) -> Hit:
        row = _free(attempt.ended("completed", error_code=None, billed=False))
        answer = Answer(
            body=body,
            content_type=EVENT_STREAM if self._header.stream else "application/json",
            queue_ms=row.queue_ms,
            cost_usd=format(row.cost_usd, "f"),
            headers={HEADER: "hit", **(STREAM_HEADERS if self._header.stream else {})},
        )
        return Hit(answer, row)

    # ---- writing

    def recording(self) -> Recording | None:
        """For an attempt whose answer may be kept."""
        return Recording(self._bounds.max_entry_bytes) if self._writes else None

    async def keep(self, route: Route, attempt: Attempt) -> None:
        """Keeps a complete answer. Called after the job was settled: nobody waits for it."""
        recording = attempt.recording
        if recording is None:
            return
        if recording.is_too_large:
            self._shared.meter.put("too_large")
        elif self._exchange.is_complete(recording.pieces):
            with self._shared.puts.one() as may_go:
                name = self._name(route, attempt)
                outcome = await self._put(name, recording.pieces) if may_go else "refused"
            self._shared.meter.put(outcome)

    async def _put(self, name: str, pieces: Sequence[bytes]) -> str:
        stored_at = self._shared.clock.now()
        entry = _encode(Entry(stored_at, self._without_usage(pieces)))
        sealed = self._shared.seal.seal(entry, _binding(name))
        if len(sealed) > self._bounds.max_entry_bytes:
            return "too_large"
        try:
            async with asyncio.timeout(PUT_SECONDS):
                kept = await self._entries.put(
                    name,
                    sealed,
                    ttl_seconds=self._bounds.ttl_seconds,
                    max_bytes=self._bounds.max_bytes,
                )
        except STORE_FAILED:
            return "refused"  # the answer is out already; the metric counts it
        return "stored" if kept else "too_large"

    def _without_usage(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Nothing is used by a hit, and it is made when it is asked for."""
        return [self._stripped(piece) for piece in pieces]

    def _stripped(self, piece: bytes) -> bytes:
        members: dict[str, Any] = _decode_members(piece)
        members.pop("created", None)
        if not self._header.stream or members.get("usage", NULL) != NULL:
            members["usage"] = NO_USAGE[self._header.endpoint]
        return _encode_json(members)

    # ---- both

    def _name(self, route: Route, attempt: Attempt) -> str:
        """Of all that decides about the answer: the document as it is sent, and who it is sent for."""
        header, request = self._header, self._exchange.request(route, attempt)
        whole = (
            header.tenant,
            route.model,
            route.tier,
            route.provider.name,
            route.provider.settings.type,
            route.upstream_model,
            header.endpoint,
            header.stream,
            header.include_usage,
            str(request.url),
            request.read(),
        )
        return hmac.digest(self._shared.name_key, _encode(whole), "sha256").hex()


def _free(row: SpendRow) -> SpendRow:
    """The row of an answer that no provider was asked for."""
    return replace(
        row,
        usage=Usage(),
        usage_source="none",
        ttft_ms=None,
        upstream_ms=0.0,
        overhead_ms=row.overhead_ms + row.upstream_ms,
        cached=True,
    )


def _binding(name: str) -> bytes:
    return b"cache:" + name.encode()
