"""API keys in Postgres: made, listed, changed, and read in batches by those who check them."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec
import uuid_utils
from sqlalchemy import Row, Select, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.account import RateLimits
from shared.api_key import ApiKey
from shared.caller import DEFAULT_TENANT, AttestationWish, Caller
from shared.clock import Clock, utc
from shared.errors import NotFound
from shared.postgres.accounts import account_columns, budget_in, key_account, user_account
from shared.postgres.audit import GATEWAY, Actor, record
from shared.postgres.budgets import new_window, parse_uuid
from shared.postgres.tables import api_keys, budgets, users
from shared.postgres.users import COLUMNS as USER_COLUMNS
from shared.postgres.users import info_of as user_of

LAST_USED_STEP = timedelta(seconds=300)
"""`last_used_at` is for people: one write per key and step is exact enough and costs nothing."""

EVERY_MODEL = "*"
"""Among allowed models: no restriction. A change has no other way to say so, its None being no
change."""
AS_THE_MODEL = "default"
"""Of attestation: no wish of the key's own; for the same reason."""


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
    limits: RateLimits = RateLimits()
    ip_allow_list: Sequence[str] = ()
    """Networks; empty: from everywhere."""
    budget_id: str | None = None
    """A budget of its own, beside its user's."""
    attestation: str | None = None
    """`record` or `require`; None, and `default`: as its models are set to."""


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a member as it is."""

    name: str | None = None
    is_active: bool | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    scopes: frozenset[str] | None = None
    best_lane: str | None = None
    allowed_models: frozenset[str] | None = None
    user_field: str | None = None
    limits: RateLimits | None = None
    ip_allow_list: Sequence[str] | None = None
    budget_id: str | None = None
    """Naming one, the present one too, starts a window and keeps the spend."""
    attestation: str | None = None


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
    limits: RateLimits
    ip_allow_list: list[str]
    previous_valid_until: datetime | None
    """Until when the secret before the last rotation works too."""
    budget_id: uuid.UUID | None
    budget_started_at: datetime | None
    next_budget_reset_at: datetime | None
    spend_since: datetime | None
    attestation: AttestationWish | None

    @property
    def object_id(self) -> str:
        return str(self.id)


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What checking a key needs: the hash of its secret, and the caller it stands for."""

    public_id: str
    secret_sha256: bytes
    caller: Caller
    expires_at: float | None
    """Epoch seconds."""
    is_active: bool
    previous_sha256: bytes | None = None
    previous_valid_until: float = 0.0
    """Epoch seconds: until then the secret before the last rotation works too."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it may be used from; empty: from everywhere."""


class KeyStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def create(
        self,
        options: KeyOptions | None = None,
        *,
        key: ApiKey | None = None,
        actor: Actor = GATEWAY,
    ) -> tuple[ApiKey, KeyInfo]:
        """The key in the clear, for the only time, and what is known of it.

        A `key` minted before may be given; a public id that exists raises IntegrityError. Raises
        NotFound for a user that was deleted, and for the budget.
        """
        options = options or KeyOptions()
        key = key or ApiKey.mint()
        key_id = uuid.UUID(bytes=uuid_utils.uuid7().bytes)
        user_id = options.user_id or f"apikey-{key_id}"
        async with self._engine.begin() as connection:
            window = await self._window(connection, options.tenant, options.budget_id)
            await self._ensure_user(connection, options, user_id, actor)
            row = await connection.execute(
                insert(api_keys)
                .values(id=key_id, user_id=user_id, **_columns(options, key), **window)
                .returning(*_INFO)
            )
            info = _info(row.one())
            await record(connection, actor, "key.create", self._clock, after=info)
            return key, info

    async def _ensure_user(
        self, connection: AsyncConnection, options: KeyOptions, user_id: str, actor: Actor
    ) -> None:
        alias = (
            f"User {user_id}"
            if options.user_id
            else f"Virtual user for API key: {options.name or 'unnamed'}"
        )
        made = await connection.execute(
            insert(users)
            .values(tenant=options.tenant, user_id=user_id, alias=alias)
            .on_conflict_do_nothing()
            .returning(*USER_COLUMNS)
        )
        if (user := made.one_or_none()) is not None:
            await record(connection, actor, "user.create", self._clock, after=user_of(user))
            return
        # Held, so that the user is not deleted between this look and the key's insertion.
        deleted_at = await connection.scalar(
            select(users.c.deleted_at)
            .where(users.c.tenant == options.tenant, users.c.user_id == user_id)
            .with_for_update(read=True)
        )
        if deleted_at is not None:
            raise NotFound(
                f"User '{user_id}' has been deleted. Recreate via POST /v1/users first.",
                code="user_not_found",
            )

    async def fetch_many(self, public_ids: Sequence[str]) -> dict[str, KeyRecord]:
        """The records of those keys that exist, in one query."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(_RECORDS.where(api_keys.c.public_id.in_(public_ids)))
            return {row.public_id: _record(row) for row in rows}

    async def ids_of(self, public_ids: Collection[str]) -> dict[str, uuid.UUID]:
        """The ids of those keys that exist, in one query."""
        query = select(api_keys.c.public_id, api_keys.c.id)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.where(api_keys.c.public_id.in_(public_ids)))
            return {row.public_id: row.id for row in rows}

    async def public_id_of(self, key_id: str) -> str:
        """Of the key that has this id; else the id as it was given."""
        if (wanted := parse_uuid(key_id)) is None:
            return key_id
        async with self._engine.connect() as connection:
            found: str | None = await connection.scalar(
                select(api_keys.c.public_id).where(api_keys.c.id == wanted)
            )
            return found or key_id

    async def get(self, key_id: str) -> KeyInfo:
        """By the key's id, or its public id. Raises NotFound."""
        async with self._engine.connect() as connection:
            return await _find(connection, key_id)

    async def list_keys(
        self, *, tenant: str | None = None, skip: int = 0, limit: int = 100
    ) -> list[KeyInfo]:
        """In the order they were made; of every tenant, or of one."""
        query = select(*_INFO).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [_info(row) for row in rows]

    async def has_any(self) -> bool:
        async with self._engine.connect() as connection:
            return await connection.scalar(select(api_keys.c.id).limit(1)) is not None

    async def update(self, key_id: str, change: KeyChange, actor: Actor) -> KeyInfo:
        """Seen everywhere within a second. Raises NotFound, for the key and for the budget."""
        given = _changed_columns(change)
        return await self._change(key_id, given, actor, "key.update", budget_id=change.budget_id)

    async def rotate(
        self, key_id: str, actor: Actor, *, overlap: timedelta = timedelta(0)
    ) -> tuple[ApiKey, KeyInfo]:
        """A new secret under the same public id, so that limits and spend go on as one key's.

        The secret before works until the overlap ends; one that overlaps already ends now. Raises
        NotFound.
        """
        minted = ApiKey.mint()
        # On the right of an UPDATE a column is what it was before.
        moved = {
            "secret_sha256": minted.secret_sha256,
            "previous_sha256": api_keys.c.secret_sha256 if overlap else None,
            "previous_valid_until": utc(self._clock.now()) + overlap if overlap else None,
        }
        info = await self._change(key_id, moved, actor, "key.rotate")
        return ApiKey(info.public_id, minted.secret), info

    async def revoke(self, key_id: str, actor: Actor = GATEWAY) -> KeyInfo:
        """Makes a key inactive, everywhere within a second. Raises NotFound."""
        return await self._change(key_id, {"is_active": False}, actor, "key.revoke")

    async def delete(self, key_id: str, actor: Actor) -> None:
        """Its user and its spend rows stay. Raises NotFound."""
        async with self._engine.begin() as connection:
            before = await _find(connection, key_id, to_change=True)
            await connection.execute(delete(api_keys).where(api_keys.c.id == before.id))
            await record(connection, actor, "key.delete", self._clock, before=before)

    async def _change(
        self,
        key_id: str,
        columns: Mapping[str, Any],
        actor: Actor,
        action: str,
        *,
        budget_id: str | None = None,
    ) -> KeyInfo:
        async with self._engine.begin() as connection:
            before = await _find(connection, key_id, to_change=True)
            changed = {**columns, **await self._window(connection, before.tenant, budget_id)}
            if not changed:
                return before
            row = await connection.execute(
                update(api_keys)
                .where(api_keys.c.id == before.id)
                .values(**changed)
                .returning(*_INFO)
            )
            after = _info(row.one())
            await record(connection, actor, action, self._clock, before=before, after=after)
            return after

    async def _window(
        self, connection: AsyncConnection, tenant: str, budget_id: str | None
    ) -> dict[str, Any]:
        """The columns that a budget sets; empty without one."""
        if budget_id is None:
            return {}
        now = self._clock.now()
        return await new_window(connection, tenant=tenant, budget_id=budget_id, now=now)

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

_user_budget, _key_budget = budgets.alias(), budgets.alias()

_RECORDS: Select[Any] = select(
    api_keys,
    users.c.blocked.label("user_is_blocked"),
    users.c.limits.label("user_limits"),
    *account_columns("user", users, _user_budget),
    *account_columns("key", api_keys, _key_budget),
    # One that somebody made active again stays useless while its user is deleted.
    (api_keys.c.is_active & users.c.deleted_at.is_(None)).label("is_usable"),
).select_from(
    api_keys.join(
        users, (users.c.tenant == api_keys.c.tenant) & (users.c.user_id == api_keys.c.user_id)
    )
    .outerjoin(_user_budget, _user_budget.c.budget_id == users.c.budget_id)
    .outerjoin(_key_budget, _key_budget.c.budget_id == api_keys.c.budget_id)
)


async def _find(connection: AsyncConnection, key_id: str, *, to_change: bool = False) -> KeyInfo:
    """Raises NotFound."""
    query = select(*_INFO).where(
        or_(api_keys.c.id == parse_uuid(key_id), api_keys.c.public_id == key_id)
    )
    if to_change:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"API key with id '{key_id}' not found", code="key_not_found")
    return _info(row)


@lru_cache(maxsize=4096)
def _network(text: str) -> IPv4Network | IPv6Network:
    """Remembered: keys in use are read again several times a second."""
    return ip_network(text)


def _columns(options: KeyOptions, key: ApiKey) -> dict[str, Any]:
    return {
        "public_id": key.public_id,
        "secret_sha256": key.secret_sha256,
        "name": options.name,
        "tenant": options.tenant,
        "scopes": sorted(options.scopes),
        "best_lane": options.best_lane,
        "allowed_models": _allowed(options.allowed_models),
        "user_field": options.user_field,
        "expires_at": options.expires_at,
        "metadata": dict(options.metadata),
        "limits": options.limits,
        "ip_allow_list": list(options.ip_allow_list),
        "attestation": _wish(options.attestation),
    }


def _changed_columns(change: KeyChange) -> dict[str, Any]:
    given = {k: v for k, v in msgspec.structs.asdict(change).items() if v is not None}
    given.pop("budget_id", None)  # comes with its window
    if change.scopes is not None:
        given["scopes"] = sorted(change.scopes)
    if change.allowed_models is not None:
        given["allowed_models"] = _allowed(change.allowed_models)
    if change.attestation is not None:
        given["attestation"] = _wish(change.attestation)
    return given


def _allowed(models: frozenset[str] | None) -> list[str] | None:
    return None if models is None or EVERY_MODEL in models else sorted(models)


def _wish(attestation: str | None) -> str | None:
    return None if attestation == AS_THE_MODEL else attestation


def _info(row: Row[Any]) -> KeyInfo:
    limits = msgspec.convert(row.limits, RateLimits)
    return KeyInfo(**{**row._mapping, "limits": limits})


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
        accounts=(
            *user_account(row.tenant, row.user_id, row.user_limits, budget_in(row, "user")),
            *key_account(row.tenant, row.public_id, row.limits, budget_in(row, "key")),
        ),
        user_is_blocked=row.user_is_blocked,
        attestation=row.attestation,
    )
    until = row.previous_valid_until
    return KeyRecord(
        public_id=row.public_id,
        secret_sha256=row.secret_sha256,
        caller=caller,
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
        is_active=row.is_usable,
        previous_sha256=row.previous_sha256,
        previous_valid_until=0.0 if until is None else until.timestamp(),
        networks=tuple(map(_network, row.ip_allow_list)),
    )
