"""Accounts in Valkey: their spend loaded from the ledger, and read; holds made larger.

Admission decides by these counters. One that is not there is never taken for zero: it is loaded
when the ledger has every row that was written before, and if nothing was charged since it was asked.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from shared.account import Budget, to_ms
from shared.money import from_nano, to_nano
from shared.valkey.client import Client, CommandRefused
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim
from shared.valkey.scripts import BEGIN_LOAD, EXTEND_HOLD, FINISH_LOAD, RESET_ACCOUNT
from shared.valkey.terms import NEVER, pack_budget


class Load(NamedTuple):
    """A load that has begun."""

    charges: bytes
    last_row: bytes
    """The spend entry up to which the ledger must have them all."""


class Counted(NamedTuple):
    """What an account has spent in its window, and holds."""

    spent: Decimal | None
    """None: not loaded."""
    held: Decimal
    started_ms: int
    """Of the window, as the counter has it."""
    since_ms: int

    def is_of(self, started: datetime | None, since: datetime | None) -> bool:
        """Whether it counts in this window of Postgres', or in a later one: as admission judges."""
        if self.spent is None:
            return False
        return (to_ms(started) or 0) <= self.started_ms and (to_ms(since) or 0) <= self.since_ms


class Accounts:
    """Of one shard."""

    def __init__(self, keys: ShardKeys) -> None:
        self.keys = keys

    async def begin_load(self, client: Client, suffix: str, *, job_seconds: float) -> Load | None:
        """None: it is loaded. Jobs may live for so many seconds."""
        keys = (self.keys.account(suffix), self.keys.spend, self.keys.loads)
        answer: list[Any] = await client.script(BEGIN_LOAD, keys, (int(job_seconds * 1000),))
        return None if answer[0] == b"loaded" else Load(answer[1], answer[2])

    async def has_drained(self, client: Client, last_row: bytes) -> bool:
        """Whether the ledger has every row up to this one."""
        first = await client.call(b"XRANGE", self.keys.spend, b"-", b"+", b"COUNT", 1)
        return not first or _position(first[0][0]) > _position(last_row)

    async def finish_load(
        self, client: Client, suffix: str, load: Load, spent: Decimal, budget: Budget
    ) -> bool:
        """False: something was charged meanwhile, so the ledger must be asked again."""
        window = (budget.since_ms, budget.started_ms, budget.resets_ms or 0)
        answer: bytes = await client.script(
            FINISH_LOAD, (self.keys.account(suffix),), (load.charges, to_nano(spent), *window)
        )
        return answer == b"loaded"

    async def counted(self, client: Client, suffixes: Sequence[str]) -> list[Counted]:
        """One for each, in their order."""
        asked = [client.call(b"HMGET", self.keys.account(suffix), *_COUNTED) for suffix in suffixes]
        return [_counted(*answer) for answer in await asyncio.gather(*asked)]

    async def reset(self, client: Client, suffix: str, budget: Budget, now_ms: int) -> str:
        """`reset`, `current` (its window has not ended) or `unloaded`."""
        answer: bytes = await client.script(
            RESET_ACCOUNT,
            (self.keys.account(suffix), self.keys.events),
            (suffix, pack_budget(budget), now_ms),
        )
        return answer.decode()

    async def announce_reset(
        self, client: Client, suffix: str, budget: Budget, *, spent: Decimal, now_ms: int
    ) -> None:
        """As the script would, for an account that is not loaded."""
        at, after = budget.window_at(now_ms)
        await client.call(
            *(b"XADD", self.keys.events, b"*", b"kind", b"budget_reset", b"account", suffix),
            *(b"budget", budget.budget_id, b"spend", to_nano(spent), b"at", at),
            *(b"next", after or NEVER),
        )

    async def last_row(self, client: Client) -> bytes:
        """The entry of the spend row that was written last."""
        try:
            info = await client.call(b"XINFO", b"STREAM", self.keys.spend)
        except CommandRefused as error:
            if "no such key" in str(error):
                return b"0-0"
            raise
        last: bytes = dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"]
        return last

    async def extend_hold(self, client: Client, claim: Claim, nano: int) -> bytes:
        """b"ok", b"denied", b"gone" or b"fenced"."""
        answer: bytes = await client.script(
            EXTEND_HOLD,
            (self.keys.job(claim.request_id),),
            (claim.token, claim.entry, nano, self.keys.account("")),
        )
        return answer


def _position(entry: bytes) -> tuple[int, int]:
    time, _, number = entry.partition(b"-")
    return int(time), int(number)


_COUNTED = (b"spend", b"held", b"started", b"since")


def _counted(
    spend: bytes | None, held: bytes | None, started: bytes | None, since: bytes | None
) -> Counted:
    spent = None if spend is None else from_nano(int(spend))
    return Counted(spent, from_nano(int(held or 0)), int(started or 0), int(since or 0))
