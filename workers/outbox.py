"""Sends replies and endings of all jobs to their inboxes, many in one write (group commit).

What has gathered leaves whenever the previous send has returned, so batches grow with the load and
no timer is needed for that. A stream's first delta and every ending leave at once; later deltas
wait for the delta window, which makes paced streams a good deal cheaper.

A send that was lost is sent again with the same numbers: posting and settling may be repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import structlog

from shared.reply import Kind, binding, pack_frame
from shared.run import unpacked_size
from shared.seal import Seal
from shared.spend import Charge, SpendRow, charge_of, encode_row
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.inbox import Ending, Post, Poster
from workers.held import HeldJob

POSTS_PER_CALL = 500
"""Arguments of one script call stay well below Lua's limit of about 8,000."""
ENDINGS_PER_CALL = 100
BYTES_PER_CALL = 8 << 20
"""Frames of one call become one entry, and the server refuses entries of a gigabyte: after it has
ended the jobs. A single frame may be larger."""
MAX_WAITING_BYTES = 64 << 20
"""Above it handlers stop reading from their providers: Valkey is slow or away."""
MAX_DELTA_BYTES = 256 << 10
"""Of one job: the same, and the largest frame but one."""
RETRY_SECONDS = 0.05

log = structlog.get_logger()

Outcome = TypeVar("Outcome")
Item = TypeVar("Item")


class Outbox:
    """Of one shard. `run` must be running; `on_settled` hears of every job that has ended."""

    def __init__(
        self,
        client: Client,
        poster: Poster,
        seal: Seal,
        *,
        delta_window_seconds: float,
        on_settled: Callable[[HeldJob, bytes], None],
    ) -> None:
        self._client = client
        self._poster = poster
        self._seal = seal
        self._window = delta_window_seconds
        self._on_settled = on_settled
        self._loop = asyncio.get_running_loop()
        self._speaking: dict[str, HeldJob] = {}
        """Jobs with deltas to post."""
        self._endings: list[tuple[HeldJob, Ending]] = []
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._due = False
        self._emptied = asyncio.Event()
        self._emptied.set()

    # ---- what handlers call; none of it waits

    def post(self, held: HeldJob, data: bytes) -> None:
        """Adds text of a stream, which may hold packed runs."""
        if held.lost or held.ending or held.cancelled or not data:
            return
        size = unpacked_size(data)  # what its reader will have to hold
        held.deltas.append(data)
        held.delta_bytes += size
        self._waiting_bytes += size
        self._speaking[held.request_id] = held
        if not held.posted or not self._window:
            held.posted = True
            self._kick()
        elif self._timer is None and not self._due:
            self._timer = self._loop.call_later(self._window, self._kick)

    def end(
        self,
        held: HeldJob,
        kind: Kind,
        payload: bytes,
        rows: Sequence[SpendRow],
        charge: Charge | None = None,
        transcripts: Sequence[bytes] = (),
    ) -> None:
        """The last reply, the rows and transcripts: the job is settled, and charged, with them.

        `charge` where it is not that of the rows: a dry run has none, and has used tokens.
        """
        if held.lost or held.ending:
            return
        held.ending = True
        frames = []
        pending = self._take_deltas(held) if held.deltas else b""
        if kind == Kind.END:
            payload = pending + payload
        elif pending:
            frames.append(self._frame(held, Kind.DELTA, pending))
        frames.append(self._frame(held, kind, payload))
        claim = held.claim
        ending = Ending(
            request_id=claim.request_id,
            lane=claim.lane,
            entry=claim.entry,
            token=claim.token,
            frames=frames,
            rows=[*[row for _, row in held.ended_rows if row], *map(encode_row, rows)],
            charge=charge_of(rows) if charge is None else charge,
            transcripts=transcripts,
        )
        self._endings.append((held, ending))
        self._kick()

    def is_full(self, held: HeldJob) -> bool:
        return held.delta_bytes > MAX_DELTA_BYTES or self._waiting_bytes > MAX_WAITING_BYTES

    async def room(self) -> None:
        """Waits until the next send has returned. Bounded by the job's own deadline."""
        self._emptied.clear()
        self._kick()
        await self._emptied.wait()

    @property
    def is_empty(self) -> bool:
        return not self._speaking and not self._endings and self._wake is not None

    # ---- the sender

    async def run(self) -> None:
        while True:
            if not self._due:
                self._wake = self._loop.create_future()
                await self._wake
                self._wake = None
            self._due = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            await self._send_all()
            self._emptied.set()

    def _kick(self) -> None:
        self._due = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _send_all(self) -> None:
        """Posts, then endings; both are on one connection, which keeps their order."""
        speaking, self._speaking = self._speaking, {}
        endings, self._endings = self._endings, []
        sends = [
            *(self._post(inbox, some) for inbox, some in self._by_inbox(speaking.values())),
            *(self._settle(inbox, some) for inbox, some in _endings_by_inbox(endings)),
        ]
        if len(sends) == 1:
            await sends[0]
        elif sends:
            await asyncio.gather(*sends)

    def _by_inbox(
        self, speaking: Iterable[HeldJob]
    ) -> Iterable[tuple[str, list[tuple[HeldJob, Post]]]]:
        inboxes: dict[str, list[tuple[HeldJob, Post]]] = {}
        for held in speaking:
            if held.lost or not held.deltas:
                continue
            frame = self._frame(held, Kind.DELTA, self._take_deltas(held))
            post = Post(request_id=held.request_id, token=held.claim.token, frame=frame)
            inboxes.setdefault(held.header.reply_to, []).append((held, post))
        return _in_batches(inboxes, POSTS_PER_CALL, lambda one: len(one[1].frame))

    async def _post(self, inbox: str, some: Sequence[tuple[HeldJob, Post]]) -> None:
        posts = [post for _, post in some]
        refused = await self._until_sent(lambda: self._poster.post(self._client, inbox, posts))
        if refused == [-1]:
            for held, _ in some:
                held.cancel()  # nobody reads this inbox any more
            return
        for position in refused:
            some[position][0].lose()

    async def _settle(self, inbox: str, some: Sequence[tuple[HeldJob, Ending]]) -> None:
        endings = [ending for _, ending in some]
        outcomes = await self._until_sent(lambda: self._poster.settle(self._client, inbox, endings))
        for (held, _), outcome in zip(some, outcomes, strict=True):
            self._on_settled(held, outcome)

    async def _until_sent(self, send: Callable[[], Awaitable[Outcome]]) -> Outcome:
        while True:
            try:
                return await send()
            except ValkeyAway:
                await asyncio.sleep(RETRY_SECONDS)
            except CommandRefused as error:
                log.error("Valkey refused replies", action="outbox_refused", error=str(error))
                await asyncio.sleep(10 * RETRY_SECONDS)

    def _take_deltas(self, held: HeldJob) -> bytes:
        deltas, held.deltas = held.deltas, []
        self._waiting_bytes -= held.delta_bytes
        held.delta_bytes = 0
        return deltas[0] if len(deltas) == 1 else b"".join(deltas)

    def _frame(self, held: HeldJob, kind: Kind, payload: bytes) -> bytes:
        held.number += 1
        claim = held.claim
        bound_to = binding(claim.request_id, kind, held.number, claim.deliveries)
        return pack_frame(kind, held.number, claim.deliveries, self._seal.seal(payload, bound_to))


def _endings_by_inbox(
    endings: Iterable[tuple[HeldJob, Ending]],
) -> Iterable[tuple[str, list[tuple[HeldJob, Ending]]]]:
    inboxes: dict[str, list[tuple[HeldJob, Ending]]] = {}
    for held, ending in endings:
        inboxes.setdefault(held.header.reply_to, []).append((held, ending))
    return _in_batches(inboxes, ENDINGS_PER_CALL, lambda one: sum(map(len, one[1].frames)))


def _in_batches(
    inboxes: dict[str, list[Item]], at_most: int, weigh: Callable[[Item], int]
) -> Iterable[tuple[str, list[Item]]]:
    for inbox, items in inboxes.items():
        batch: list[Item] = []
        size = 0
        for item in items:
            weight = weigh(item)
            if batch and (len(batch) == at_most or size + weight > BYTES_PER_CALL):
                yield inbox, batch
                batch, size = [], 0
            batch.append(item)
            size += weight
        yield inbox, batch
