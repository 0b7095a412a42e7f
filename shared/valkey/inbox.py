"""A shard's inbox, as the API process that owns it and the workers that post to it use it."""

from collections.abc import Iterable, Sequence

import msgspec

from shared.spend import Charge
from shared.valkey.admission import DONE_MS
from shared.valkey.client import Client
from shared.valkey.keys import ShardKeys
from shared.valkey.scripts import POST, RENEW_INBOX, SETTLE

READ_COUNT = 64
"""Entries of up to 8 MiB: a read must not fill the memory."""
READS_PER_TRIM = 32
"""A trim is a write of its own; what is kept meanwhile is at most this many reads."""


class Post(msgspec.Struct, frozen=True):
    """One reply on its way: already framed and sealed."""

    request_id: str
    token: bytes
    frame: bytes


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ends: its last replies, the rows of every attempt that has none yet, and the
    transcripts of calls that are to have a receipt."""

    request_id: str
    lane: str
    entry: bytes
    token: bytes
    frames: Sequence[bytes]
    rows: Sequence[bytes]
    charge: Charge = Charge()
    transcripts: Sequence[bytes] = ()


class Poster:
    """Posts to the inboxes of one shard."""

    def __init__(self, keys: ShardKeys, *, inbox_lease_seconds: float) -> None:
        self.keys = keys
        self._lease_seconds = inbox_lease_seconds

    async def post(self, client: Client, inbox: str, posts: Sequence[Post]) -> list[int]:
        """The positions that were refused because another worker has the job; [-1]: no reader.

        May be repeated: replies are numbered and the reader drops what it has.
        """
        keys = [self.keys.inbox(inbox), self.keys.inbox_lease(inbox), self.keys.boot]
        args: list[bytes | str | float] = [self._lease_seconds]
        for post in posts:
            keys.append(self.keys.job(post.request_id))
            args += (post.token, post.request_id, post.frame)
        refused: list[int] = await client.script(POST, keys, args)
        return [at if at < 0 else at - 1 for at in refused]

    async def settle(self, client: Client, inbox: str, endings: Sequence[Ending]) -> list[bytes]:
        """Ends jobs: for each b"ok", b"gone" (it had ended) or b"fenced". May be repeated."""
        keys = [
            self.keys.inbox(inbox),
            self.keys.inbox_lease(inbox),
            self.keys.spend,
            self.keys.spend_rows,
            self.keys.sealed_bytes,
            self.keys.done,
            self.keys.loads,
            self.keys.receipts,
        ]
        args: list[bytes | str | int] = [DONE_MS, self.keys.account("")]
        for end in endings:
            keys += (self.keys.job(end.request_id), self.keys.lanes[end.lane])
            args += (end.token, end.entry, end.request_id, *end.charge)
            args += (len(end.frames), len(end.rows), len(end.transcripts))
            args += end.frames
            args += end.rows
            args += end.transcripts
        answer: list[bytes] = await client.script(SETTLE, keys, args)
        return answer


class InboxStream:
    """The reading end: one process, one shard."""

    def __init__(self, keys: ShardKeys, process: str, *, lease_seconds: float) -> None:
        self.keys = keys
        self._process = process
        self._stream = keys.inbox(process)
        self._lease_ms = int(lease_seconds * 1000)
        self._last = b"0"
        self._trimmed = b"0"
        self._reads = 0

    async def renew(self, client: Client) -> None:
        """Keeps the inbox alive for one more lease."""
        await client.script(
            RENEW_INBOX,
            (self.keys.inbox_lease(self._process), self.keys.inboxes),
            (self._process, self._lease_ms),
        )
        # What was read is sealed, but need not stay: at rest nothing of an answer is left.
        await client.call(b"XTRIM", self._stream, b"MINID", _after(self._last))

    async def close(self, client: Client) -> None:
        """Gives the inbox up: jobs that still reply to it are cancelled."""
        await client.call(b"DEL", self.keys.inbox_lease(self._process), self._stream)
        await client.call(b"SREM", self.keys.inboxes, self._process)

    async def read(self, client: Client, block_ms: int) -> Iterable[list[bytes]]:
        """Waits for replies: lists of request id, frame, request id, frame …

        What was read before is dropped by MINID, never by count: packed entries are big.
        """
        self._reads += 1
        if self._last != self._trimmed and self._reads % READS_PER_TRIM == 0:
            client.call(b"XTRIM", self._stream, b"MINID", b"~", self._last).add_done_callback(
                _observe
            )
            self._trimmed = self._last
        answer = await client.call(
            *(b"XREAD", b"COUNT", READ_COUNT, b"BLOCK", block_ms),
            *(b"STREAMS", self._stream, self._last),
        )
        if not answer:
            return ()
        entries = answer[0][1]
        self._last = entries[-1][0]
        return [fields for _, fields in entries]


def _after(entry: bytes) -> bytes:
    """The smallest id behind an entry's."""
    time, _, number = entry.partition(b"-")
    return b"%b-%d" % (time, int(number or 0) + 1)


def _observe(future: object) -> None:
    """A trim that failed is done again by the next read; its error is not news."""
    future.cancelled() or future.exception()  # type: ignore[attr-defined]
