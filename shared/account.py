"""An account: what one user, key or model may use, and under which budget.

Whoever asks is checked against several at once: the billed user's, the key's and the model's. What
they have used and hold is counted in Valkey; this is what they are measured by.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec

from shared.money import to_nano

Kind = Literal["user", "key", "model"]

MAX_BUDGET_USD = 9_000_000
"""Valkey's scripts count nano-dollars in doubles, which are exact below 2^53."""


class RateLimits(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What may be used at a time; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    """Requests at a time."""

    @property
    def are_none(self) -> bool:
        return not (self.requests_per_minute or self.tokens_per_minute or self.concurrent)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as one account has it: amounts in nano-dollars, times in epoch milliseconds."""

    budget_id: str
    max_nano: int | None
    """None: spend is counted and never refused."""
    soft_nano: int | None = None
    """From here on answers carry a warning."""
    duration_ms: int | None = None
    """None: spend is never reset."""
    started_ms: int
    """Of the window. Valkey keeps its own, until a later one comes from Postgres."""
    resets_ms: int | None = None
    since_ms: int = 0
    """Requests admitted from then on count."""

    def window_at(self, now_ms: int) -> tuple[int, int | None]:
        """Start and end of the window after the one that ended, as the script resets it: windows in
        which nothing was asked are passed over. Only for a budget whose window has ended."""
        assert self.resets_ms is not None  # noqa: S101 - it has ended
        if not self.duration_ms:
            return self.resets_ms, None
        passed = (now_ms - self.resets_ms) // self.duration_ms
        start = self.resets_ms + passed * self.duration_ms
        return start, start + self.duration_ms


class Account(msgspec.Struct, frozen=True):
    """One scope a request is checked against. Only those with a budget or a limit are ever made."""

    kind: Kind
    suffix: str
    """What its keys in Valkey end in."""
    tenant: str
    owner: str
    """The user, the key's public id, or the model's name."""
    limits: RateLimits = RateLimits()
    budget: Budget | None = None

    @property
    def shown(self) -> str:
        """How an error names it."""
        return {"user": f"User '{self.owner}'", "key": "API key", "model": "The model"}[self.kind]


def user_suffix(tenant: str, user: str) -> str:
    """Both parts may hold any character: the length, of bytes, says where the first ends."""
    return f"user:{len(tenant.encode())}:{tenant}:{user}"


def key_suffix(public_id: str) -> str:
    return f"key:{public_id}"


def owner_of(suffix: str) -> tuple[Kind, str, str]:
    """Kind, tenant (empty but for a user) and owner. Raises ValueError for what is no suffix."""
    kind, _, rest = suffix.partition(":")
    if kind == "user":
        length, _, names = rest.partition(":")
        raw = names.encode()
        tenant, user = raw[: int(length)], raw[int(length) + 1 :]
        return "user", tenant.decode(), user.decode()
    if kind == "key":
        return "key", "", rest
    if kind == "model":
        return "model", "", rest
    raise ValueError("not an account")


def user_account(
    tenant: str, user: str, limits: RateLimits, budget: Budget | None = None
) -> Account:
    return Account("user", user_suffix(tenant, user), tenant, user, limits, budget)


def key_account(
    tenant: str, public_id: str, limits: RateLimits, budget: Budget | None = None
) -> Account:
    return Account("key", key_suffix(public_id), tenant, public_id, limits, budget)


def model_account(model: str, limits: RateLimits) -> Account:
    return Account("model", f"model:{model}", "", model, limits)


def budget_of(
    *,
    budget_id: object,
    max_budget: Decimal | None,
    soft_budget: Decimal | None,
    duration_seconds: int | None,
    started_at: datetime | None,
    resets_at: datetime | None,
    since: datetime | None,
) -> Budget:
    """From the columns of Postgres."""
    return Budget(
        budget_id=str(budget_id),
        max_nano=None if max_budget is None else _nano(max_budget),
        soft_nano=None if soft_budget is None else _nano(soft_budget),
        duration_ms=None if duration_seconds is None else duration_seconds * 1000,
        started_ms=to_ms(started_at) or 0,
        resets_ms=to_ms(resets_at),
        since_ms=to_ms(since) or 0,
    )


def _nano(amount: Decimal) -> int:
    return to_nano(min(amount, Decimal(MAX_BUDGET_USD)))


def to_ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    """Exact, so that `to_ms` gives the same number back."""
    return _EPOCH + timedelta(milliseconds=ms)


_EPOCH = datetime.fromtimestamp(0, UTC)
