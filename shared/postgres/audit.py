"""The audit log: who changed what, from where, and what it was before and after.

An entry is written in the transaction of its change: there is no change without its entry, and no
entry of a change that did not happen. What it shows never holds a secret or a hash of one.
"""

import uuid
from datetime import datetime
from typing import Protocol

import msgspec
import uuid_utils
from sqlalchemy import Text, cast, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.clock import Clock, utc
from shared.postgres.tables import audit_log


class Actor(msgspec.Struct, frozen=True):
    """Who makes a change, and from where."""

    name: str
    address: str | None = None
    request_id: str | None = None


GATEWAY = Actor("gateway")
"""The gateway itself, as when it makes its first key."""
CLI = Actor("cli")
"""Whoever has a shell and the database's address."""


class Audited(Protocol):
    """An object as people see it, which is what an entry shows of it: it can be written as JSON."""

    @property
    def object_id(self) -> str:
        """How the log names it."""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are asked for; None: of any."""

    actor: str | None = None
    action: str | None = None
    object_type: str | None = None
    object_id: str | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: uuid.UUID
    at: datetime
    actor: str
    action: str
    object_type: str
    object_id: str
    before: msgspec.Raw | None
    """JSON as it is stored: numbers keep their digits."""
    after: msgspec.Raw | None
    address: str | None
    request_id: str | None


class AuditLog:
    """Raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list_entries(
        self, wanted: AuditFilter, *, skip: int = 0, limit: int = 100
    ) -> list[AuditEntry]:
        """Newest first."""
        query = select(*_COLUMNS).order_by(audit_log.c.at.desc(), audit_log.c.id.desc())
        for name in AuditFilter.__struct_fields__:
            if (value := getattr(wanted, name)) is not None:
                query = query.where(audit_log.c[name] == value)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [
                AuditEntry(
                    **{
                        **row._mapping,
                        "before": _raw(row.before),
                        "after": _raw(row.after),
                    }
                )
                for row in rows
            ]


async def record(
    connection: AsyncConnection,
    actor: Actor,
    action: str,
    clock: Clock,
    *,
    before: Audited | None = None,
    after: Audited | None = None,
) -> None:
    """Call it inside the transaction of the change; `action` is `<object type>.<verb>`."""
    shown = after or before
    assert shown is not None  # noqa: S101 - a change has at least one side
    await connection.execute(
        insert(audit_log).values(
            id=uuid.UUID(bytes=uuid_utils.uuid7().bytes),
            at=utc(clock.now()),
            actor=actor.name,
            action=action,
            object_type=action.partition(".")[0],
            object_id=shown.object_id,
            before=before,
            after=after,
            address=actor.address,
            request_id=actor.request_id,
        )
    )


_AS_TEXT = ("before", "after")
_COLUMNS = [
    cast(audit_log.c[name], Text).label(name) if name in _AS_TEXT else audit_log.c[name]
    for name in AuditEntry.__struct_fields__
]


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
