"""A shard's lanes, as a worker uses them: claim, heartbeat, reclaim, give back, bury.

A claim is held by a token, `<delivery count>:<worker id>`; every script that changes a job compares
it, so a worker that lost its lease, or woke from a pause, can neither post nor settle.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared.job import LANES, JobHeader, decode_header
from shared.valkey.client import Client, CommandRefused, Word
from shared.valkey.gather import Gatherer
from shared.valkey.keys import WORKERS_GROUP, ShardKeys
from shared.valkey.scripts import ATTEMPT, BURY, GIVE_BACK, HEARTBEAT, RECLAIM

WEIGHTS = {"priority": 8, "default": 4, "flex": 2, "batch": 1}
BURIED_KEPT = 1000


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job this worker holds."""

    keys: ShardKeys
    lane: str
    entry: bytes
    deliveries: int
    token: bytes
    request_id: str
    raw_header: bytes
    sealed_body: bytes
    spoke: bool = False
    progress: bytes | None = None
    attempts: dict[str, bytes] = {}
    """Rows of attempts an earlier holder recorded and did not end, by row id."""

    def header(self) -> JobHeader:
        """Raises msgspec.DecodeError."""
        return decode_header(self.raw_header)


class Lanes:
    """All lanes of one shard, for one worker."""

    def __init__(self, keys: ShardKeys, worker: str, *, inbox_lease_seconds: float = 5.0) -> None:
        self.keys = keys
        self._inbox_lease_seconds = inbox_lease_seconds
        self._worker = worker.encode()
        self._names = {key: lane for lane, key in keys.lanes.items()}
        self._first_token = b"1:" + self._worker
        self._attempts: Gatherer[tuple[Sequence[bytes], Sequence[Word]]] = Gatherer(
            self._send_attempts
        )

    async def ensure_groups(self, client: Client) -> None:
        """Makes the groups at the beginning of each lane, so that no earlier job is missed."""
        for key in self.keys.lanes.values():
            try:
                await client.call(b"XGROUP", b"CREATE", key, WORKERS_GROUP, b"0", b"MKSTREAM")
            except CommandRefused as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def claim(self, client: Client, slots: int) -> list[Claim]:
        """Takes what is waiting, best lanes first, by weight, at most `slots`; does not block.

        For a worker that is nearly full: only then does it matter which lane goes first.
        """
        share = sum(WEIGHTS.values())
        answers = [
            client.call(
                *(b"XREADGROUP", b"GROUP", WORKERS_GROUP, self._worker),
                *(b"COUNT", max(1, slots * WEIGHTS[lane] // share)),
                *(b"STREAMS", self.keys.lanes[lane], b">"),
            )
            for lane in LANES
        ]
        return [
            claim for answer in await asyncio.gather(*answers) for claim in self._claims(answer)
        ]

    async def wait(self, client: Client, *, per_lane: int, block_ms: int) -> list[Claim]:
        """Waits until any lane has a job; takes at most `per_lane` from each, best lanes first."""
        keys = list(self.keys.lanes.values())
        words: list[Word] = [b"XREADGROUP", b"GROUP", WORKERS_GROUP, self._worker]
        words += (b"COUNT", per_lane, b"BLOCK", block_ms)
        words += (b"STREAMS", *keys, *([b">"] * len(keys)))
        return self._claims(await client.call(*words))

    def _claims(self, answer: Any) -> list[Claim]:
        claims = []
        for key, entries in answer or ():
            for entry, fields in entries:
                claims.append(
                    Claim(
                        keys=self.keys,
                        lane=self._names[key],
                        entry=entry,
                        deliveries=1,
                        token=self._first_token,
                        request_id=fields[1].decode(),
                        raw_header=fields[3],
                        sealed_body=fields[5],
                    )
                )
        return claims

    async def attempt(
        self,
        client: Client,
        claim: Claim,
        *,
        reply_to: str,
        row_id: str,
        row: bytes,
        ended: Iterable[tuple[str, bytes]],
    ) -> bytes:
        """Records an attempt before its send: b"ok", b"gone", b"fenced" or b"cancelled".

        Cancelled it is also when nobody is left to read the answer: no inbox, no call.
        """
        args: list[Word] = [claim.token, claim.entry, row_id, row, 0]
        for ended_id, ended_row in ended:
            args += (ended_id, ended_row)
        args[4] = (len(args) - 5) // 2
        keys = (self.keys.job(claim.request_id), self.keys.inbox_lease(reply_to))
        answer: bytes = await self._attempts.ask(client, (keys, args))
        return answer

    def _send_attempts(
        self, client: Client, asked: Sequence[tuple[Sequence[bytes], Sequence[Word]]]
    ) -> asyncio.Future[Any]:
        keys = [self.keys.spend, self.keys.spend_rows, self.keys.boot]
        args: list[Word] = [self._inbox_lease_seconds]
        for own_keys, own_args in asked:
            keys += own_keys
            args += own_args
        return client.script(ATTEMPT, keys, args)

    async def heartbeat(
        self, client: Client, beats: Sequence[tuple[Claim, str, bytes]]
    ) -> list[bytes]:
        """Renews leases. A beat is a claim, the inbox it replies to, and how far it has come.

        Returns for each b"ok", b"cancelled", b"gone" or b"fenced".
        """
        keys: list[bytes] = [self.keys.boot]
        args: list[Word] = [self._worker, self._inbox_lease_seconds]
        for claim, reply_to, progress in beats:
            keys += (
                self.keys.job(claim.request_id),
                self.keys.lanes[claim.lane],
                self.keys.inbox_lease(reply_to),
            )
            args += (claim.token, claim.entry, progress)
        answer: list[bytes] = await client.script(HEARTBEAT, keys, args)
        return answer

    async def reclaim(
        self, client: Client, lane: str, *, lease_ms: int, at_most: int
    ) -> list[Claim]:
        """Takes over jobs whose holder was silent for a lease; their holders are fenced out."""
        taken = await client.script(
            RECLAIM,
            (self.keys.lanes[lane], self.keys.boot),
            (self._worker, lease_ms, at_most, self.keys.job("")),
        )
        return [self._taken_over(lane, *one) for one in taken]

    def _taken_over(
        self, lane: str, entry: bytes, deliveries: int, fields: list[bytes], flat: list[bytes]
    ) -> Claim:
        state = dict(zip(flat[::2], flat[1::2], strict=True))
        return Claim(
            keys=self.keys,
            lane=lane,
            entry=entry,
            deliveries=deliveries,
            token=b"%d:%b" % (deliveries, self._worker),
            request_id=fields[1].decode(),
            raw_header=fields[3],
            sealed_body=fields[5],
            spoke=b"spoke" in state,
            progress=state.get(b"progress"),
            attempts={
                name[2:].decode(): row for name, row in state.items() if name.startswith(b"a:")
            },
        )

    async def give_back(
        self, client: Client, claim: Claim, ended: Iterable[tuple[str, bytes]]
    ) -> bytes:
        """Puts an unspoken job back at the end of its lane, not counted as a delivery."""
        args: list[bytes | str] = [claim.token, claim.entry]
        for row_id, row in ended:
            args += (row_id, row)
        answer: bytes = await client.script(
            GIVE_BACK,
            (
                self.keys.lanes[claim.lane],
                self.keys.job(claim.request_id),
                self.keys.spend,
                self.keys.spend_rows,
            ),
            args,
        )
        return answer

    async def bury(self, client: Client, claim: Claim, reason: str) -> None:
        """Notes a job that is given up, without its body. The caller settles it afterwards."""
        await client.script(
            BURY,
            (self.keys.buried,),
            (
                *(BURIED_KEPT, b"r", claim.request_id, b"lane", claim.lane),
                *(b"deliveries", claim.deliveries, b"reason", reason),
            ),
        )
