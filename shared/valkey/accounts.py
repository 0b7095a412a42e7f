"""Accounts in Valkey: their spend loaded from the ledger, and read; holds made larger.

Admission decides by these counters. One that is not there is never taken for zero: it is loaded
when the ledger has every row that was written before, and if nothing was charged since it was asked.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from shared.account import Budget
from shared.money import from_nano, to_nano
from shared.valkey.client import Client
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim
from shared.valkey.scripts import BEGIN_LOAD, EXTEND_HOLD, FINISH_LOAD


class Load(NamedTuple):
    """A load that has begun."""

    charges: bytes
    last_row: bytes
    """The spend entry up to which the ledger must have them all."""


class Money(NamedTuple):
    """What an account has spent in its window, and holds."""

    spent: Decimal
    held: Decimal


class Accounts:
    """Of one shard."""

    def __init__(self, keys: ShardKeys) -> None:
        self.keys = keys

    async def begin_load(self, client: Client, suffix: str, *, job_seconds: float) -> Load | None:
        """None: it is loaded. Jobs may live for so many seconds."""
        keys = (self.keys.account(suffix), self.keys.spend, self.keys.loads)
        answer: list[Any] = await client.script(BEGIN_LOAD, keys, (int(job_seconds * 1000),))
        return None if answer[0] == b"loaded" else Load(answer[1], answer[2])

    async def has_drained(self, client: Client, load: Load) -> bool:
        """Whether the ledger has every row that was there when the load began."""
        first = await client.call(b"XRANGE", self.keys.spend, b"-", b"+", b"COUNT", 1)
        return not first or _position(first[0][0]) > _position(load.last_row)

    async def finish_load(
        self, client: Client, suffix: str, load: Load, spent: Decimal, budget: Budget
    ) -> bool:
        """False: something was charged meanwhile, so the ledger must be asked again."""
        window = (budget.since_ms, budget.started_ms, budget.resets_ms or 0)
        answer: bytes = await client.script(
            FINISH_LOAD, (self.keys.account(suffix),), (load.charges, to_nano(spent), *window)
        )
        return answer == b"loaded"

    async def money(self, client: Client, suffixes: Sequence[str]) -> list[Money | None]:
        """None for those that are not loaded."""
        answers = [
            client.call(b"HMGET", self.keys.account(suffix), b"spend", b"held")
            for suffix in suffixes
        ]
        return [_money(*await answer) for answer in answers]

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


def _money(spend: bytes | None, held: bytes | None) -> Money | None:
    return None if spend is None else Money(from_nano(int(spend)), from_nano(int(held or 0)))
