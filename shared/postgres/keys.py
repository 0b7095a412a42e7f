"""API keys in Postgres: made, listed, revoked, and read in batches by those who check them."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import uuid_utils
from sqlalchemy import Row, Select, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.api_key import ApiKey
from shared.caller import DEFAULT_TENANT, Caller
from shared.clock import Clock, utc
from shared.postgres.tables import api_keys, users

LAST_USED_STEP = timedelta(seconds=300)
"""`last_used_at` is for people: one write per key and step is exact enough and costs nothing."""


class KeyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key may do, and for whom."""

    name: str | None = None
    user_id: str | None = None
    """None: a virtual user `apikey-<id of the key>` is made. One that is not there is made too."""
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset()
    best_lane: str = "priority"
    allowed_models: frozenset[str] | None = None
    user_field: str = "attribute"
    expires_at: datetime | None = None
    metadata: Mapping[str, Any] = {}


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key as people see it: everything but the secret and its hash."""

    id: uuid.UUID
    public_id: str
    name: str | None
    tenant: str
    user_id: str
    scopes: list[str]
    best_lane: str
    allowed_models: list[str] | None
    user_field: str
    expires_at: datetime | None
    is_active: bool
    last_used_at: datetime | None
    created_at: datetime
    metadata: dict[str, Any]


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What checking a key needs: the hash of its secret, and the caller it stands for."""

    public_id: str
    secret_sha256: bytes
    caller: Caller
    expires_at: float | None
    """Epoch seconds."""
    is_active: bool
    user_is_blocked: bool


class KeyStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def create(
        self, options: KeyOptions | None = None, *, key: ApiKey | None = None
    ) -> tuple[ApiKey, KeyInfo]:
        """The key in the clear, for the only time, and what is known of it.

        A `key` minted before may be given; a public id that exists raises IntegrityError.
        """
        options = options or KeyOptions()
        key = key or ApiKey.mint()
        key_id = uuid.UUID(bytes=uuid_utils.uuid7().bytes)
        user_id = options.user_id or f"apikey-{key_id}"
        async with self._engine.begin() as connection:
            await self._ensure_user(connection, options, user_id)
            row = await connection.execute(
                insert(api_keys)
                .values(id=key_id, user_id=user_id, **_columns(options, key))
                .returning(*_INFO)
            )
            return key, _info(row.one())

    async def _ensure_user(
        self, connection: AsyncConnection, options: KeyOptions, user_id: str
    ) -> None:
        alias = (
            f"User {user_id}"
            if options.user_id
            else f"Virtual user for API key: {options.name or 'unnamed'}"
        )
        await connection.execute(
            insert(users)
            .values(tenant=options.tenant, user_id=user_id, alias=alias)
            .on_conflict_do_nothing()
        )

    async def fetch_many(self, public_ids: Sequence[str]) -> dict[str, KeyRecord]:
        """The records of those keys that exist, in one query."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(_RECORDS.where(api_keys.c.public_id.in_(public_ids)))
            return {row.public_id: _record(row) for row in rows}

    async def list_keys(self, *, skip: int = 0, limit: int = 100) -> list[KeyInfo]:
        """In the order they were made."""
        query = select(*_INFO).order_by(api_keys.c.created_at, api_keys.c.id)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [_info(row) for row in rows]

    async def has_any(self) -> bool:
        async with self._engine.connect() as connection:
            return await connection.scalar(select(api_keys.c.id).limit(1)) is not None

    async def revoke(self, public_id: str) -> bool:
        """Makes a key inactive, everywhere within a second; False where there is no such key."""
        revoked = (
            update(api_keys)
            .where(api_keys.c.public_id == public_id)
            .values(is_active=False)
            .returning(api_keys.c.id)
        )
        async with self._engine.begin() as connection:
            return await connection.scalar(revoked) is not None

    async def mark_used(self, public_ids: Iterable[str]) -> None:
        """Writes `last_used_at` of keys whose last mark is older than the step."""
        now = utc(self._clock.now())
        last = api_keys.c.last_used_at
        # Sorted, so that two processes that mark the same keys lock them in the same order.
        locked = (
            select(api_keys.c.id)
            .where(api_keys.c.public_id.in_(sorted(public_ids)))
            .where(or_(last.is_(None), last < now - LAST_USED_STEP))
            .order_by(api_keys.c.id)
            .with_for_update()
        )
        async with self._engine.begin() as connection:
            await connection.execute(
                update(api_keys).where(api_keys.c.id.in_(locked)).values(last_used_at=now)
            )


_INFO = [api_keys.c[name] for name in KeyInfo.__struct_fields__]

_RECORDS: Select[Any] = select(api_keys, users.c.blocked.label("user_is_blocked")).join(
    users, (users.c.tenant == api_keys.c.tenant) & (users.c.user_id == api_keys.c.user_id)
)


def _columns(options: KeyOptions, key: ApiKey) -> dict[str, Any]:
    allowed = options.allowed_models
    return {
        "public_id": key.public_id,
        "secret_sha256": key.secret_sha256,
        "name": options.name,
        "tenant": options.tenant,
        "scopes": sorted(options.scopes),
        "best_lane": options.best_lane,
        "allowed_models": None if allowed is None else sorted(allowed),
        "user_field": options.user_field,
        "expires_at": options.expires_at,
        "metadata": dict(options.metadata),
    }


def _info(row: Row[Any]) -> KeyInfo:
    return KeyInfo(**row._mapping)


def _record(row: Row[Any]) -> KeyRecord:
    allowed = row.allowed_models
    caller = Caller(
        tenant=row.tenant,
        user=row.user_id,
        key_id=row.public_id,
        best_lane=row.best_lane,
        scopes=frozenset(row.scopes),
        allowed_models=None if allowed is None else frozenset(allowed),
        user_field=row.user_field,
    )
    return KeyRecord(
        public_id=row.public_id,
        secret_sha256=row.secret_sha256,
        caller=caller,
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
        is_active=row.is_active,
        user_is_blocked=row.user_is_blocked,
    )
