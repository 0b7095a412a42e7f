"""Budgets in Postgres: templates of a limit, of which every user that has one spends its own."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import uuid_utils
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.caller import DEFAULT_TENANT
from shared.clock import Clock, utc
from shared.errors import InvalidRequest, NotFound
from shared.postgres.audit import Actor, record
from shared.postgres.tables import budgets


class BudgetTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set; in a change, None leaves it as it is."""

    max_budget: Decimal | None = None
    """US dollars; None: no limit."""
    soft_budget: Decimal | None = None
    """US dollars, not more than the most; None: no warning."""
    budget_duration_sec: int | None = None
    """None: spend is never reset."""


class BudgetInfo(msgspec.Struct, frozen=True, kw_only=True):
    budget_id: uuid.UUID
    tenant: str
    max_budget: Decimal | None
    soft_budget: Decimal | None
    budget_duration_sec: int | None
    created_at: datetime
    updated_at: datetime

    def next_reset(self, now: datetime) -> datetime | None:
        """The end of a window that starts now."""
        seconds = self.budget_duration_sec
        return None if seconds is None else now + timedelta(seconds=seconds)

    @property
    def object_id(self) -> str:
        return str(self.budget_id)


class BudgetStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def create(
        self, terms: BudgetTerms, actor: Actor, *, tenant: str = DEFAULT_TENANT
    ) -> BudgetInfo:
        """Raises InvalidRequest."""
        _check(terms.soft_budget, terms.max_budget)
        budget_id = uuid.UUID(bytes=uuid_utils.uuid7().bytes)
        made = (
            insert(budgets)
            .values(budget_id=budget_id, tenant=tenant, **msgspec.structs.asdict(terms))
            .returning(*_INFO)
        )
        async with self._engine.begin() as connection:
            info = _info((await connection.execute(made)).one())
            await record(connection, actor, "budget.create", self._clock, after=info)
            return info

    async def get(self, budget_id: str) -> BudgetInfo:
        """Raises NotFound."""
        async with self._engine.connect() as connection:
            return await find_budget(connection, budget_id)

    async def list_budgets(
        self, *, tenant: str | None = None, skip: int = 0, limit: int = 100
    ) -> Sequence[BudgetInfo]:
        """In the order they were made; of every tenant, or of one."""
        query = select(*_INFO).order_by(budgets.c.created_at, budgets.c.budget_id)
        if tenant is not None:
            query = query.where(budgets.c.tenant == tenant)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [_info(row) for row in rows]

    async def update(self, budget_id: str, terms: BudgetTerms, actor: Actor) -> BudgetInfo:
        """Running windows keep their end. Raises NotFound, InvalidRequest."""
        given = {k: v for k, v in msgspec.structs.asdict(terms).items() if v is not None}
        async with self._engine.begin() as connection:
            before = await find_budget(connection, budget_id, to_change=True)
            if not given:
                return before
            _check(
                given.get("soft_budget", before.soft_budget),
                given.get("max_budget", before.max_budget),
            )
            changed = (
                update(budgets)
                .where(budgets.c.budget_id == before.budget_id)
                .values(**given, updated_at=func.now())
                .returning(*_INFO)
            )
            after = _info((await connection.execute(changed)).one())
            await record(
                connection, actor, "budget.update", self._clock, before=before, after=after
            )
            return after

    async def delete(self, budget_id: str, actor: Actor) -> None:
        """Those who have it are unlimited from then on; their resets stay. Raises NotFound."""
        async with self._engine.begin() as connection:
            before = await find_budget(connection, budget_id, to_change=True)
            await connection.execute(delete(budgets).where(budgets.c.budget_id == before.budget_id))
            await record(connection, actor, "budget.delete", self._clock, before=before)


async def find_budget(
    connection: AsyncConnection,
    budget_id: str,
    *,
    tenant: str | None = None,
    to_change: bool = False,
) -> BudgetInfo:
    """Held until the transaction ends, against deletion at least. Raises NotFound."""
    query = select(*_INFO).where(budgets.c.budget_id == parse_uuid(budget_id))
    if tenant is not None:
        query = query.where(budgets.c.tenant == tenant)
    row = (await connection.execute(query.with_for_update(read=not to_change))).one_or_none()
    if row is None:
        raise NotFound(f"Budget with id '{budget_id}' not found", code="budget_not_found")
    return _info(row)


async def new_window(
    connection: AsyncConnection, *, tenant: str, budget_id: str, now: float
) -> dict[str, Any]:
    """The columns of whoever is given this budget: a window that starts now, with the spend kept.

    Raises NotFound.
    """
    budget = await find_budget(connection, budget_id, tenant=tenant)
    return {
        "budget_id": budget.budget_id,
        "budget_started_at": utc(now),
        "next_budget_reset_at": budget.next_reset(utc(now)),
    }


def _check(soft: Decimal | None, most: Decimal | None) -> None:
    if soft is not None and most is not None and soft > most:
        raise InvalidRequest("soft_budget is more than max_budget", param="soft_budget")


def parse_uuid(text: str) -> uuid.UUID | None:
    """None, which is equal to no id, for what is no UUID."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


_INFO = [budgets.c[name] for name in BudgetInfo.__struct_fields__]


def _info(row: Row[Any]) -> BudgetInfo:
    return BudgetInfo(**row._mapping)
