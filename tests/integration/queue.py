"""A queue to test against: both ends of it, on a real Valkey, without processes around them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from shared.clock import SystemClock
from shared.document import QueueLimits
from shared.ids import new_id
from shared.job import JobHeader
from shared.valkey.admission import Admission
from shared.valkey.client import Client
from shared.valkey.inbox import InboxStream, Poster
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim, Lanes

INBOX = "api-1"
LIMITS = QueueLimits()


@dataclass
class Queue:
    client: Client
    keys: ShardKeys
    admission: Admission
    poster: Poster
    inbox: InboxStream

    def lanes(self, worker: str = "worker-1") -> Lanes:
        return Lanes(self.keys, worker)

    async def admit(self, header: JobHeader | None = None, limits: QueueLimits = LIMITS) -> str:
        header = header or a_header()
        await self.admission.admit(self.client, header, b"sealed", limits)
        return header.request_id

    async def claimed(self, worker: str = "worker-1", slots: int = 15) -> list[Claim]:
        return await self.lanes(worker).claim(self.client, slots)

    async def replies(self) -> list[tuple[str, bytes]]:
        found = []
        for fields in await self.inbox.read(self.client, 10):
            pairs = iter(fields)
            found += [(name.decode(), frame) for name, frame in zip(pairs, pairs, strict=True)]
        return found

    async def spend_rows(self) -> list[bytes]:
        entries = await self.client.call(b"XRANGE", self.keys.spend, b"-", b"+")
        return [row for _, fields in entries for row in fields[1::2]]

    async def transcripts(self) -> list[bytes]:
        entries = await self.client.call(b"XRANGE", self.keys.receipts, b"-", b"+")
        return [raw for _, fields in entries for raw in fields[1::2]]

    async def job_exists(self, request_id: str) -> bool:
        return bool(await self.client.call(b"EXISTS", self.keys.job(request_id)))

    async def keys_left(self) -> set[bytes]:
        """All keys but the remembrance of what is done, and the streams and books themselves."""
        lasting = {
            *self.keys.lanes.values(),
            self.keys.spend,
            self.keys.spend_rows,
            self.keys.receipts,
            self.keys.done,
            self.keys.inboxes,
            self.keys.boot,
        }
        found = set(await self.client.call(b"KEYS", b"*"))
        return {key for key in found - lasting if b":inbox" not in key}


def a_header(**changes: object) -> JobHeader:
    values: dict[str, object] = {
        "request_id": new_id(),
        "reply_to": INBOX,
        "lane": "default",
        "tenant": "default",
        "user": "someone",
        "model": "sim_echo",
        "asked_model": "sim_echo",
        "config_hash": "0" * 16,
        "episode_id": new_id(),
        "admitted_at": SystemClock().now(),
        "queue_seconds": 60.0,
        "total_seconds": 600.0,
    }
    return JobHeader(**{**values, **changes})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def open_queue(url: str) -> AsyncIterator[Queue]:
    keys = ShardKeys(0)
    client = Client(url, name="test")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(client.run())
        await client.connected(5)
        inbox = InboxStream(keys, INBOX, lease_seconds=30)
        await inbox.renew(client)
        await Lanes(keys, "setup").ensure_groups(client)
        yield Queue(client, keys, Admission(keys), Poster(keys, inbox_lease_seconds=30), inbox)
        running.cancel()
