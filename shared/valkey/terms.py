"""What admission is told of a job's accounts, and what it tells: packed for its script, and read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from shared.account import Account, Budget
from shared.errors import Internal, NotPermitted, TooManyRequests
from shared.hold import Hold

NEVER = 0
NO_LIMIT = 0
NO_AMOUNT = -1
"""Budgets may be of 0 dollars."""

_pack = msgspec.msgpack.Encoder().encode


class Terms(NamedTuple):
    """What one job must pass, and will hold."""

    accounts: Sequence[Account]
    hold: Hold
    admitted_at: float


class Left(NamedTuple):
    """Of one limit, the tightest of the job's accounts."""

    limit: int
    left: int
    reset_seconds: float


class Standing(NamedTuple):
    """How an admitted job's accounts stand."""

    requests: Left | None = None
    tokens: Left | None = None
    soft_spent: tuple[int, int] | None = None
    """A soft limit is passed: what was spent and the most, in nano-dollars (-1: anything)."""


class Unloaded(Exception):
    """An account's spend is not in Valkey: it must come from the ledger first."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.suffix)
        self.account = account


def pack_terms(terms: Terms) -> bytes:
    hold = terms.hold
    return _pack(
        (
            *(hold.nano, hold.is_free, hold.tokens, int(terms.admitted_at * 1000)),
            [_account(account) for account in terms.accounts],
        )
    )


def _account(account: Account) -> tuple[Any, ...]:
    limits = account.limits
    return (
        account.suffix,
        limits.requests_per_minute or NO_LIMIT,
        limits.tokens_per_minute or NO_LIMIT,
        limits.concurrent or NO_LIMIT,
        False if account.budget is None else _budget(account.budget),
    )


def _budget(budget: Budget) -> tuple[Any, ...]:
    return (
        budget.budget_id,
        NO_AMOUNT if budget.max_nano is None else budget.max_nano,
        NO_AMOUNT if budget.soft_nano is None else budget.soft_nano,
        budget.duration_ms or NEVER,
        budget.started_ms,
        budget.resets_ms or NEVER,
        budget.since_ms,
    )


def pack_budget(budget: Budget) -> bytes:
    return _pack(_budget(budget))


def read_standing(told: Sequence[Any]) -> Standing:
    requests, tokens, soft = told
    return Standing(_left(requests), _left(tokens), tuple(map(int, soft)) if soft else None)  # type: ignore[arg-type]


def _left(told: Sequence[int]) -> Left | None:
    return Left(told[0], told[1], told[2] / 1000) if told else None


class RateLimited(TooManyRequests):
    """One of our own limits; with how it stands."""

    def __init__(self, account: Account, standing: Standing, wait: float) -> None:
        super().__init__("Rate limit exceeded", retry_after=max(1.0, wait))
        self.account = account
        self.standing = standing


def raise_refusal(terms: Terms, refusal: Sequence[Any]) -> None:
    """Raises Unloaded, TooManyRequests, NotPermitted, or Internal (see Valkey's log), as a script's refusal says."""
    word, number, wait_ms, limit = refusal
    account, wait = terms.accounts[number - 1], wait_ms / 1000
    if word == b"unloaded":
        raise Unloaded(account)
    if word == b"failed":
        raise Internal("The budget of the request could not be looked at.")
    if word == b"budget":
        which = "budget" if account.kind == "user" else "its budget"
        raise NotPermitted(f"{account.shown} has exceeded {which} limit", code="budget_exceeded")
    if word == b"concurrent":
        text = f"No more than {limit} requests at a time"
        raise TooManyRequests(text, code="concurrency_limit", retry_after=wait)
    left = Left(limit, 0, wait)
    standing = Standing(requests=left) if word == b"requests" else Standing(tokens=left)
    raise RateLimited(account, standing, wait)
