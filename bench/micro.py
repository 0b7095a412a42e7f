"""`python -m bench.micro`: what single pieces of the hot path cost, in µs of CPU.

In the process: sealing, checking a body, a key, encoding rows, rewriting a chunk. On a real Valkey
(`appendfsync always`): one job's way through the queue, by client and by server, alone and with
others in the same turn of the loop.
"""

import asyncio
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import redis
import uvloop

from bench.process import cpu_by_role
from shared.api_key import ApiKey, is_secret, split
from shared.clock import SystemClock
from shared.dialects import chat
from shared.document import QueueLimits
from shared.embedded.servers import EmbeddedServers, GivenUrls
from shared.ids import new_id
from shared.job import JobHeader, decode_header, encode_header
from shared.reply import Kind, pack_frame
from shared.seal import KEY_BYTES, Seal
from shared.spend import SpendRow, decode_row, encode_row
from shared.usage import Usage
from shared.valkey.admission import Admission
from shared.valkey.client import Client, open_client
from shared.valkey.inbox import Ending, InboxStream, Poster
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim, Lanes

SAMPLES = 7
CALLS = 2000
JOBS_BY_GROUP = {1: 512, 64: 4096}
"""Jobs at a time, and in all: alone each waits for several fsyncs, and a busy disk takes its time."""
LIMIT_SECONDS = 120
"""Jobs that are not through by then never will be."""
INBOX = "bench-api"
LEASE_SECONDS = 60.0
NOT_STARTED = "not-started"

BODY = json.dumps(
    {
        "model": "bench_chat",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Write a short poem about the sea, tired and well read."},
        ],
        "temperature": 0.7,
        "max_tokens": 256,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()
CHUNK = (
    b'{"id":"chatcmpl-000000000000000000000001","object":"chat.completion.chunk",'
    b'"created":1763600000,"model":"gpt-4o-mini-2024-07-18","system_fingerprint":"fp_44added55e",'
    b'"choices":[{"index":0,"delta":{"content":" tk00000"},"logprobs":null,"finish_reason":null}]}'
)


def main() -> None:
    for name, piece in pieces().items():
        print(f"{cost_us(piece):9.2f} µs  {name}")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        given = GivenUrls(postgres=NOT_STARTED, clickhouse=NOT_STARTED)
        servers = EmbeddedServers(Path(folder), given=given)
        servers.start()
        try:
            for together, jobs in JOBS_BY_GROUP.items():
                _print_round_trip(servers, together, jobs)
        finally:
            servers.stop()


def cost_us(piece: Callable[[], object]) -> float:
    """Median CPU of one call."""
    samples = []
    for _ in range(SAMPLES):
        began = time.process_time()
        for _ in range(CALLS):
            piece()
        samples.append((time.process_time() - began) / CALLS * 1e6)
    return statistics.median(samples)


def pieces() -> dict[str, Callable[[], object]]:
    seal, bound_to = Seal([bytes(KEY_BYTES)]), b"job:0"
    kilobyte = bytes(1024)
    sealed = seal.seal(kilobyte, bound_to)
    key = ApiKey.mint()
    token, digest = key.text.encode(), key.secret_sha256
    header, row = a_header(), a_row()
    packed_header, packed_row = encode_header(header), encode_row(row)
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    def check_key() -> bool:
        parts = split(token)
        return parts is not None and is_secret(parts[1], digest)

    return {
        "seal 1 KB": lambda: seal.seal(kilobyte, bound_to),
        "open 1 KB": lambda: seal.open(sealed, bound_to),
        "check a chat body of 350 bytes": lambda: chat.parse(BODY),
        "check a key": check_key,
        "make an id": new_id,
        "encode a job header": lambda: encode_header(header),
        "decode a job header": lambda: decode_header(packed_header),
        "encode a spend row": lambda: encode_row(row),
        "decode a spend row": lambda: decode_row(packed_row),
        "decode and encode a stream chunk": lambda: encode(decode(CHUNK)),
    }


def a_header() -> JobHeader:
    return JobHeader(
        request_id=new_id(),
        reply_to=INBOX,
        lane="default",
        tenant="default",
        user="someone",
        model="bench_chat",
        asked_model="bench_chat",
        config_hash="0" * 16,
        episode_id=new_id(),
        admitted_at=SystemClock().now(),
        queue_seconds=60.0,
        total_seconds=600.0,
    )


def a_row() -> SpendRow:
    now = datetime.datetime.now(datetime.UTC)
    return SpendRow(
        row_id=new_id(),
        request_id=new_id(),
        tenant="default",
        user="someone",
        model="bench_chat",
        provider="bench",
        upstream_model="gpt-4o-mini",
        lane="default",
        config_hash="0" * 16,
        status="completed",
        usage=Usage(input_tokens=23, output_tokens=16),
        usage_source="provider",
        created_at=now,
        started_at=now,
        ended_at=now,
    )


# ---- one job's way through the queue


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """Per job: admit, claim, record an attempt, settle, read the reply."""

    client_cpu_us: float
    server_cpu_us: float
    wall_us: float
    """Of one job when it is alone; of the whole group, shared out, when it is not."""


def _print_round_trip(servers: EmbeddedServers, together: int, jobs: int) -> None:
    found = uvloop.run(round_trips(servers, together=together, jobs=jobs))
    with redis.Redis.from_url(servers.urls.valkey_url, decode_responses=True) as server:
        commands: dict[str, dict[str, float]] = server.info("commandstats")
    print(
        f"\nqueue round trip, {together} at a time: client {found.client_cpu_us:.1f} µs, "
        f"server {found.server_cpu_us:.1f} µs CPU, {found.wall_us:.0f} µs of wall time a job"
    )
    for name, stats in sorted(commands.items(), key=lambda item: -item[1]["usec"])[:6]:
        print(
            f"{stats['usec'] / jobs:9.2f} µs  {name.removeprefix('cmdstat_')}: "
            f"{stats['calls'] / jobs:.2f} calls a job"
        )


async def round_trips(servers: EmbeddedServers, *, together: int, jobs: int) -> RoundTrip:
    url, roles = servers.urls.valkey_url, {"valkey": [servers.pids["valkey"]]}
    async with asyncio.timeout(LIMIT_SECONDS), open_client(url, name="bench") as client:
        queue = _Queue(client)
        await queue.prepare()
        await queue.pass_through(together)
        await client.call(b"CONFIG", b"RESETSTAT")
        server, own, wall = cpu_by_role(roles)["valkey"], time.process_time(), time.monotonic()
        for _ in range(jobs // together):
            await queue.pass_through(together)
        wall, own = time.monotonic() - wall, time.process_time() - own
        server = cpu_by_role(roles)["valkey"] - server
    return RoundTrip(
        client_cpu_us=own / jobs * 1e6, server_cpu_us=server / jobs * 1e6, wall_us=wall / jobs * 1e6
    )


class _Queue:
    """Both ends of one shard, on one connection."""

    def __init__(self, client: Client) -> None:
        keys = ShardKeys(0)
        self._client = client
        self._admission = Admission(keys)
        self._lanes = Lanes(keys, "bench-worker")
        self._poster = Poster(keys, inbox_lease_seconds=LEASE_SECONDS)
        self._inbox = InboxStream(keys, INBOX, lease_seconds=LEASE_SECONDS)
        self._limits = QueueLimits()
        self._body = Seal([bytes(KEY_BYTES)]).seal(BODY, b"job:0")
        self._row = encode_row(a_row())

    async def prepare(self) -> None:
        await self._lanes.ensure_groups(self._client)
        await self._inbox.renew(self._client)

    async def pass_through(self, jobs: int) -> None:
        """The steps one after another; within a step all jobs share one write, as in service."""
        async with asyncio.TaskGroup() as group:
            for _ in range(jobs):
                group.create_task(self._admit())
        claims: list[Claim] = []
        while len(claims) < jobs:
            claims += await self._lanes.claim(self._client, jobs * 2)
        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(self._attempt(claim))
        await self._poster.settle(self._client, INBOX, [self._ending(claim) for claim in claims])
        await self._inbox.read(self._client, 1000)

    async def _admit(self) -> None:
        await self._admission.admit(self._client, a_header(), self._body, self._limits)

    async def _attempt(self, claim: Claim) -> None:
        await self._lanes.attempt(
            self._client, claim, reply_to=INBOX, row_id=new_id(), row=self._row, ended=()
        )

    def _ending(self, claim: Claim) -> Ending:
        return Ending(
            request_id=claim.request_id,
            lane=claim.lane,
            entry=claim.entry,
            token=claim.token,
            frames=[pack_frame(Kind.WHOLE, 1, 1, self._body)],
            rows=[self._row],
        )


if __name__ == "__main__":
    main()
