"""Every key in Valkey. Only this file builds names; docs/queue-protocol.md explains them.

All keys of a shard share the hash tag `{s<k>}`, so every script touches one slot and Valkey
Cluster works unchanged. A tenant lives in one shard: k = hash(tenant) mod `queue.shards`.
"""

import hashlib
from functools import cached_property

from shared.job import LANES

WORKERS_GROUP = b"workers"
METERING_GROUP = b"metering"
BACKGROUND_GROUP = b"background"


def shard_of(tenant: str, shards: int) -> int:
    """The shard a tenant's keys live in; the same in every process and release."""
    if shards == 1:
        return 0
    return int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], "big") % shards


class ShardKeys:
    """The names of one shard."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self._tag = f"{{s{shard}}}:".encode()

    def lane(self, lane: str) -> bytes:
        """Stream of jobs of one lane, group `workers`."""
        return self._tag + b"lane:" + lane.encode()

    @cached_property
    def lanes(self) -> dict[str, bytes]:
        return {lane: self.lane(lane) for lane in LANES}

    def job(self, request_id: str) -> bytes:
        """Hash: the state of a job that has not ended."""
        return self._tag + b"job:" + request_id.encode()

    @cached_property
    def done(self) -> bytes:
        """Hash of request ids, each with a TTL of its own: jobs that ended. An admission asked again
        must not run one twice."""
        return self._tag + b"done"

    def inbox(self, process: str) -> bytes:
        """Stream of replies for one API process."""
        return self._tag + b"inbox:" + process.encode()

    def inbox_lease(self, process: str) -> bytes:
        """String with a TTL that the inbox's owner renews."""
        return self._tag + b"inbox-lease:" + process.encode()

    @cached_property
    def inboxes(self) -> bytes:
        """Set of the inboxes that were ever made and not yet cleaned up."""
        return self._tag + b"inboxes"

    def control(self, worker: str) -> bytes:
        """Sharded pub/sub channel: cancel, pause and resume notices for one worker process."""
        return self._tag + b"control:" + worker.encode()

    @cached_property
    def spend(self) -> bytes:
        """Stream of spend rows, many to an entry, group `metering`."""
        return self._tag + b"spend"

    @cached_property
    def spend_rows(self) -> bytes:
        """Integer: the rows on that stream."""
        return self._tag + b"spend-rows"

    @cached_property
    def spend_quarantine(self) -> bytes:
        """Stream of spend rows that could not be read or inserted, each with its reason."""
        return self._tag + b"spend-quarantine"

    @cached_property
    def receipts(self) -> bytes:
        """Stream of transcripts, many to an entry, group `background`."""
        return self._tag + b"receipts"

    @cached_property
    def receipts_quarantine(self) -> bytes:
        """Stream of transcripts that could not be read, each with its reason."""
        return self._tag + b"receipts-quarantine"

    @cached_property
    def buried(self) -> bytes:
        """Stream of jobs given up after too many deliveries, without their bodies."""
        return self._tag + b"buried"

    @cached_property
    def sealed_bytes(self) -> bytes:
        """Integer: sealed bytes of all jobs that have not ended."""
        return self._tag + b"sealed-bytes"

    @cached_property
    def boot(self) -> bytes:
        """String: the server's run id, and when it was first asked since it started."""
        return self._tag + b"boot"

    def cache_entry(self, name: str) -> bytes:
        """String with a TTL: a sealed answer, named by an HMAC of its request."""
        return self._tag + b"cache:" + name.encode()

    @cached_property
    def cache_index(self) -> bytes:
        """Sorted set of `<name>:<size>`: the cache's entries by the time they expire."""
        return self._tag + b"cache-index"

    @cached_property
    def cache_bytes(self) -> bytes:
        """Integer: the bytes of all entries that are in the index."""
        return self._tag + b"cache-bytes"

    def upload(self, request_id: str) -> bytes:
        """Stream of sealed chunks of one upload."""
        return self._tag + b"upload:" + request_id.encode()

    @cached_property
    def uploads(self) -> bytes:
        """Hash: request id → last chunk, bytes that wait and when it last moved, of every upload."""
        return self._tag + b"uploads"

    def account(self, suffix: str) -> bytes:
        """Hash: what an account has spent and holds. For the suffix see `shared.account.Account`."""
        return self._tag + b"account:" + suffix.encode()

    def window(self, suffix: str) -> bytes:
        """Sorted set with a TTL: request ids by when an account's limit counted them."""
        return self._tag + b"window:" + suffix.encode()

    @cached_property
    def loads(self) -> bytes:
        """String with a TTL: jobs may run that began before an account was loaded."""
        return self._tag + b"loads"

    @cached_property
    def events(self) -> bytes:
        """Stream of what happened to budgets, group `background`."""
        return self._tag + b"events"

    def metrics(self, process: str) -> bytes:
        """String with a TTL: the metrics a process last published."""
        return self._tag + b"metrics:" + process.encode()

    @cached_property
    def processes(self) -> bytes:
        """Hash of live processes: id → role, start time, last seen."""
        return self._tag + b"processes"
