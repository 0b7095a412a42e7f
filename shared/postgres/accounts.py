"""The accounts of users and keys, read beside them: the columns of a query, and what they say."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, FromClause, Row

from shared import account as accounts
from shared.account import Account, Budget, RateLimits, budget_of

Owner = Literal["user", "key"]
_OF_OWNER = ("budget_started_at", "next_budget_reset_at", "spend_since")
_OF_BUDGET = ("budget_id", "max_budget", "soft_budget", "budget_duration_sec")


def account_columns(
    prefix: Owner, owner: FromClause, budget: FromClause
) -> list[ColumnElement[Any]]:
    """Of the budget a row of users or keys has; for `budget_in` under the same prefix."""
    own = [owner.c[name].label(f"{prefix}_{name}") for name in _OF_OWNER]
    return [*own, *(budget.c[name].label(f"{prefix}_{name}") for name in _OF_BUDGET)]


def budget_in(row: Row[Any], prefix: Owner) -> Budget | None:
    found = {name: getattr(row, f"{prefix}_{name}") for name in (*_OF_OWNER, *_OF_BUDGET)}
    if found["budget_id"] is None:
        return None
    return budget_of(
        budget_id=found["budget_id"],
        max_budget=found["max_budget"],
        soft_budget=found["soft_budget"],
        duration_seconds=found["budget_duration_sec"],
        started_at=found["budget_started_at"],
        resets_at=found["next_budget_reset_at"],
        since=found["spend_since"],
    )


def user_account(
    tenant: str, user: str, limits: Mapping[str, Any], budget: Budget | None
) -> tuple[Account, ...]:
    """Empty where nothing is to be checked."""
    account = accounts.user_account(tenant, user, _limits(limits), budget)
    return () if _has_none(account) else (account,)


def key_account(
    tenant: str, public_id: str, limits: Mapping[str, Any], budget: Budget | None
) -> tuple[Account, ...]:
    account = accounts.key_account(tenant, public_id, _limits(limits), budget)
    return () if _has_none(account) else (account,)


def _has_none(account: Account) -> bool:
    return account.budget is None and account.limits.are_none


def _limits(document: Mapping[str, Any]) -> RateLimits:
    return msgspec.convert(document, RateLimits) if document else _NONE


_NONE = RateLimits()
