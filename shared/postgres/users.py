"""Users in Postgres: whom keys belong to and spend is billed to."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.account import Account, RateLimits
from shared.caller import DEFAULT_TENANT
from shared.clock import Clock, utc
from shared.errors import Conflict, NotFound
from shared.postgres.accounts import account_columns, budget_in, user_account
from shared.postgres.audit import Actor, record
from shared.postgres.budgets import new_window
from shared.postgres.tables import api_keys, budgets, users
from shared.spend import Spender

UserName = tuple[str, str]
"""The tenant, and the user's id in it."""
MAX_USER_ID = 255
"""Characters: it is part of an index, which bounds it."""


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    tenant: str = DEFAULT_TENANT
    alias: str | None = None
    budget_id: str | None = None
    blocked: bool = False
    metadata: Mapping[str, Any] = {}
    limits: RateLimits = RateLimits()


class UserChange(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a member as it is."""

    alias: str | None = None
    budget_id: str | None = None
    """Naming one, the present one too, starts a window and keeps the spend."""
    blocked: bool | None = None
    metadata: Mapping[str, Any] | None = None
    limits: RateLimits | None = None
    """Replaced whole."""


class UserInfo(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    user_id: str
    alias: str | None
    budget_id: uuid.UUID | None
    budget_started_at: datetime | None
    next_budget_reset_at: datetime | None
    spend_since: datetime | None
    blocked: bool
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any]
    limits: RateLimits

    @property
    def spender(self) -> Spender:
        return Spender(self.tenant, self.user_id, self.spend_since)

    @property
    def object_id(self) -> str:
        return self.user_id


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What billing a user needs."""

    tenant: str
    user_id: str
    blocked: bool
    accounts: tuple[Account, ...]


class UserStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away.

    A deleted user is hidden from all of them but `create`, which revives it, and `was_known`.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def create(self, new: NewUser, actor: Actor) -> UserInfo:
        """Raises Conflict, and NotFound for the budget."""
        async with self._engine.begin() as connection:
            values = {
                "alias": new.alias,
                "blocked": new.blocked,
                "metadata": dict(new.metadata),
                "limits": new.limits,
                **await self._window(connection, new.tenant, new.budget_id),
            }
            made = (
                insert(users)
                .values(tenant=new.tenant, user_id=new.user_id, **values)
                .on_conflict_do_update(
                    index_elements=[users.c.tenant, users.c.user_id],
                    set_={**values, **self._revived()},
                    where=users.c.deleted_at.is_not(None),
                )
                .returning(*COLUMNS)
            )
            row = (await connection.execute(made)).one_or_none()
            if row is None:
                raise Conflict(f"User with id '{new.user_id}' already exists", code="user_exists")
            info = info_of(row)
            await record(connection, actor, "user.create", self._clock, after=info)
            return info

    def _revived(self) -> dict[str, Any]:
        """Keys stay inactive, and rows from before do not count as spend."""
        return {
            "deleted_at": None,
            "updated_at": func.now(),
            "spend_since": utc(self._clock.now()),
        }

    async def get(self, user_id: str, *, tenant: str = DEFAULT_TENANT) -> UserInfo:
        """Raises NotFound."""
        async with self._engine.connect() as connection:
            return await self._find(connection, tenant, user_id)

    async def fetch_many(self, names: Sequence[UserName]) -> dict[UserName, UserRecord]:
        """The records of those users that exist, in one query."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                _RECORDS.where(tuple_(users.c.tenant, users.c.user_id).in_(names))
            )
            return {(row.tenant, row.user_id): _record_of(row) for row in rows}

    async def was_known(self, user_id: str) -> bool:
        """In any tenant; deleted users count."""
        if "\x00" in user_id:
            return False  # Postgres has no such text
        async with self._engine.connect() as connection:
            return bool(await connection.scalar(select(exists().where(users.c.user_id == user_id))))

    async def list_users(
        self, *, tenant: str | None = None, skip: int = 0, limit: int = 100
    ) -> Sequence[UserInfo]:
        """In the order they were made; of every tenant, or of one."""
        query = select(*COLUMNS).where(users.c.deleted_at.is_(None))
        if tenant is not None:
            query = query.where(users.c.tenant == tenant)
        query = query.order_by(users.c.created_at, users.c.user_id, users.c.tenant)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [info_of(row) for row in rows]

    async def update(
        self, user_id: str, change: UserChange, actor: Actor, *, tenant: str = DEFAULT_TENANT
    ) -> UserInfo:
        """Raises NotFound, for the user and for the budget."""
        given = {k: v for k, v in msgspec.structs.asdict(change).items() if v is not None}
        async with self._engine.begin() as connection:
            before = await self._find(connection, tenant, user_id, to_change=True)
            if not given:
                return before
            if change.budget_id is not None:
                given |= await self._window(connection, tenant, change.budget_id)
            changed = (
                update(users)
                .where(users.c.tenant == tenant, users.c.user_id == user_id)
                .values(**given, updated_at=func.now())
                .returning(*COLUMNS)
            )
            after = info_of((await connection.execute(changed)).one())
            await record(connection, actor, "user.update", self._clock, before=before, after=after)
            return after

    async def delete(self, user_id: str, actor: Actor, *, tenant: str = DEFAULT_TENANT) -> None:
        """Hides the user and makes all their keys inactive. Raises NotFound."""
        async with self._engine.begin() as connection:
            before = await self._find(connection, tenant, user_id, to_change=True)
            await connection.execute(
                update(users)
                .where(users.c.tenant == tenant, users.c.user_id == user_id)
                .values(deleted_at=utc(self._clock.now()), updated_at=func.now())
            )
            await connection.execute(
                update(api_keys)
                .where(api_keys.c.tenant == tenant, api_keys.c.user_id == user_id)
                .values(is_active=False)
            )
            await record(connection, actor, "user.delete", self._clock, before=before)

    async def _find(
        self, connection: AsyncConnection, tenant: str, user_id: str, *, to_change: bool = False
    ) -> UserInfo:
        query = select(*COLUMNS).where(
            users.c.tenant == tenant, users.c.user_id == user_id, users.c.deleted_at.is_(None)
        )
        if to_change:
            query = query.with_for_update()
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(f"User with id '{user_id}' not found", code="user_not_found")
        return info_of(row)

    async def _window(
        self, connection: AsyncConnection, tenant: str, budget_id: str | None
    ) -> dict[str, Any]:
        """The columns of a window of this budget that starts now; all empty without one."""
        if budget_id is None:
            return {"budget_id": None, "budget_started_at": None, "next_budget_reset_at": None}
        now = self._clock.now()
        return await new_window(connection, tenant=tenant, budget_id=budget_id, now=now)


COLUMNS = [users.c[name] for name in UserInfo.__struct_fields__]


def info_of(row: Row[Any]) -> UserInfo:
    limits = msgspec.convert(row.limits, RateLimits)
    return UserInfo(**{**row._mapping, "limits": limits})


_RECORDS = (
    select(
        users.c.tenant,
        users.c.user_id,
        users.c.blocked,
        users.c.limits,
        *account_columns("user", users, budgets),
    )
    .select_from(users.outerjoin(budgets, budgets.c.budget_id == users.c.budget_id))
    .where(users.c.deleted_at.is_(None))
)


def _record_of(row: Row[Any]) -> UserRecord:
    return UserRecord(
        tenant=row.tenant,
        user_id=row.user_id,
        blocked=row.blocked,
        accounts=user_account(row.tenant, row.user_id, row.limits, budget_in(row, "user")),
    )
