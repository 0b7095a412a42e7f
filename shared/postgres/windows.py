"""The windows of budgets in Postgres: reset as the counters were, those that are due, their history."""

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.account import Account, RateLimits, from_ms, key_account, owner_of, user_account
from shared.errors import NotFound
from shared.money import from_nano
from shared.postgres.accounts import account_columns, budget_in
from shared.postgres.budgets import parse_uuid
from shared.postgres.keys import KeyInfo
from shared.postgres.tables import api_keys, budget_resets, budgets, users

NO_KEY = ""
"""Of a user's own reset."""


class Owner(NamedTuple):
    """Whose account it is."""

    tenant: str
    user_id: str
    key_id: str = NO_KEY
    """A key's public id."""


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """Of one account, as a script made it. Times in epoch milliseconds."""

    account: str
    """Its suffix."""
    budget_id: str
    previous_nano: int
    at_ms: int
    next_ms: int | None


class ResetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the history."""

    user_id: str
    key_id: str
    budget_id: UUID
    previous_spend: Decimal
    reset_at: datetime
    next_reset_at: datetime | None


class WindowStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def owner(self, suffix: str) -> Owner | None:
        """None for a key that was deleted, and for what is no account of an owner's."""
        async with self._engine.connect() as connection:
            return await _owner(connection, suffix)

    async def reset(self, reset: Reset) -> Owner | None:
        """Notes it in the history, and moves the owner's window unless management has set a later
        one. The same reset again changes nothing. None: nobody has the account any more."""
        async with self._engine.begin() as connection:
            owner, budget_id = await _owner(connection, reset.account), parse_uuid(reset.budget_id)
            if owner is None or budget_id is None:
                return None
            at = from_ms(reset.at_ms)
            after = None if reset.next_ms is None else from_ms(reset.next_ms)
            row = {
                **owner._asdict(),
                "budget_id": budget_id,
                "previous_spend": from_nano(reset.previous_nano),
                "reset_at": at,
                "next_reset_at": after,
            }
            await connection.execute(insert(budget_resets).values(row).on_conflict_do_nothing())
            table = api_keys if owner.key_id else users
            moved = {
                "budget_started_at": at, "next_budget_reset_at": after, "spend_since": at
            }  # fmt: skip
            await connection.execute(
                update(table)
                .where(_is_of(owner))
                .where(table.c.budget_id == budget_id, table.c.budget_started_at < at)
                .values(moved)
            )
            return owner

    async def due(self, now: datetime, *, limit: int) -> list[Account]:
        """Those whose window has ended, the longest first. Deleted users spend nothing any more."""
        found: list[tuple[datetime, Account]] = []
        async with self._engine.connect() as connection:
            for query, kind, table in ((_OF_USERS, "user", users), (_OF_KEYS, "key", api_keys)):
                ends = table.c.next_budget_reset_at
                rows = await connection.execute(
                    query.where(ends <= now).order_by(ends).limit(limit)
                )
                found += [(row.ends, _account(row, kind)) for row in rows]
        return [account for _, account in sorted(found, key=lambda one: one[0])][:limit]

    async def budgeted(self) -> list[Account]:
        """Everybody who has a budget."""
        async with self._engine.connect() as connection:
            return [
                _account(row, kind)
                for query, kind in ((_OF_USERS, "user"), (_OF_KEYS, "key"))
                for row in await connection.execute(query)
            ]

    async def history_of_user(
        self, user_id: str, *, tenant: str, skip: int = 0, limit: int = 100
    ) -> list[ResetInfo]:
        """Newest first; of deleted users too. Raises NotFound for one that never was."""
        is_theirs = (users.c.tenant == tenant) & (users.c.user_id == user_id)
        async with self._engine.connect() as connection:
            if await connection.scalar(select(users.c.user_id).where(is_theirs)) is None:
                raise NotFound(f"User with id '{user_id}' not found", code="user_not_found")
            owner = Owner(tenant, user_id)
            return await _history(connection, owner, skip=skip, limit=limit)

    async def history_of_key(
        self, key: KeyInfo, *, skip: int = 0, limit: int = 100
    ) -> list[ResetInfo]:
        async with self._engine.connect() as connection:
            owner = Owner(key.tenant, key.user_id, key.public_id)
            return await _history(connection, owner, skip=skip, limit=limit)


async def _owner(connection: AsyncConnection, suffix: str) -> Owner | None:
    kind, tenant, name = owner_of(suffix)
    if kind == "user":
        return Owner(tenant, name)
    query = select(api_keys.c.tenant, api_keys.c.user_id).where(api_keys.c.public_id == name)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Owner(row.tenant, row.user_id, name)


def _is_of(owner: Owner) -> ColumnElement[bool]:
    if owner.key_id:
        return api_keys.c.public_id == owner.key_id
    return (users.c.tenant == owner.tenant) & (users.c.user_id == owner.user_id)


async def _history(
    connection: AsyncConnection, owner: Owner, *, skip: int, limit: int
) -> list[ResetInfo]:
    query = (
        select(*(budget_resets.c[name] for name in ResetInfo.__struct_fields__))
        .where(*(budget_resets.c[name] == value for name, value in owner._asdict().items()))
        .order_by(budget_resets.c.reset_at.desc())
    )
    rows = await connection.execute(query.offset(skip).limit(limit))
    return [ResetInfo(**row._mapping) for row in rows]


_OF_USERS: Select[Any] = (
    select(
        users.c.tenant,
        users.c.user_id.label("name"),
        users.c.next_budget_reset_at.label("ends"),
        *account_columns("user", users, budgets),
    )
    .join_from(users, budgets, users.c.budget_id == budgets.c.budget_id)
    .where(users.c.deleted_at.is_(None))
)
_OF_KEYS: Select[Any] = select(
    api_keys.c.tenant,
    api_keys.c.public_id.label("name"),
    api_keys.c.next_budget_reset_at.label("ends"),
    *account_columns("key", api_keys, budgets),
).join_from(api_keys, budgets, api_keys.c.budget_id == budgets.c.budget_id)


def _account(row: Any, kind: Any) -> Account:
    make = user_account if kind == "user" else key_account
    return make(row.tenant, row.name, RateLimits(), budget_in(row, kind))
