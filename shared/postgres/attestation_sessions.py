"""Attestation sessions in Postgres: what each report proved of a machine, and for how long it counts."""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.attestation.factor import Factor
from shared.postgres.budgets import parse_uuid
from shared.postgres.evidence import put_evidence, read_evidence, storable
from shared.postgres.tables import attestation_sessions as sessions

SessionLabel = Literal["verified", "failed"]
MAX_TEXT = 500
"""Characters of what a provider says of itself."""


class SessionEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The digests (`sha256:…`) of a session's texts; empty: it had none."""

    report: str = ""
    collateral: Mapping[str, str] = {}
    """By `FMSPC/ca`."""
    nras: str = ""
    nras_keys: str = ""

    @property
    def digests(self) -> list[str]:
        found = [self.report, *self.collateral.values(), self.nras, self.nras_keys]
        return [digest for digest in found if digest]


class AttestationSession(msgspec.Struct, frozen=True, kw_only=True):
    session_id: uuid.UUID
    provider: str
    upstream_model: str
    host: str
    """Where the report came from."""
    shape: str
    scope: str
    signer: str
    algorithm: str
    tls_spki: str
    compose_hash: str
    os_image_hash: str
    tcb_status: str
    label: SessionLabel
    factors: tuple[Factor, ...]
    synthetic: bool
    fetched_at: datetime
    expires_at: datetime
    nonce: str
    evidence: SessionEvidence


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions are asked for; None: of any."""

    upstream_models: Collection[str] | None = None
    provider: str | None = None
    label: str | None = None
    signer: str | None = None


class SessionStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, session: AttestationSession, evidence: Mapping[str, str]) -> None:
        """`evidence` are the session's texts by digest. May be repeated."""
        async with self._engine.begin() as connection:
            await put_evidence(connection, evidence)
            made = insert(sessions).values(_columns(session))
            await connection.execute(made.on_conflict_do_nothing())

    async def get(self, session_id: str) -> AttestationSession | None:
        query = select(*_COLUMNS).where(sessions.c.session_id == parse_uuid(session_id))
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _session(row)

    async def latest(
        self, provider: str, upstream_model: str, *, signer: str | None = None
    ) -> AttestationSession | None:
        """The newest one, verified or not; of a signer, or of any."""
        wanted = SessionFilter(provider=provider, upstream_models=[upstream_model], signer=signer)
        found = await self.page(wanted, limit=1)
        return found[0] if found else None

    async def page(
        self, wanted: SessionFilter, *, skip: int = 0, limit: int = 100
    ) -> list[AttestationSession]:
        """Newest first."""
        query = select(*_COLUMNS).order_by(
            sessions.c.fetched_at.desc(), sessions.c.session_id.desc()
        )
        for name in ("provider", "label", "signer"):
            if (value := getattr(wanted, name)) is not None:
                query = query.where(sessions.c[name] == value)
        if wanted.upstream_models is not None:
            query = query.where(sessions.c.upstream_model.in_(wanted.upstream_models))
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [_session(row) for row in rows]

    async def evidence(self, session: AttestationSession) -> dict[str, str]:
        """Its texts, by digest."""
        async with self._engine.connect() as connection:
            return await read_evidence(connection, session.evidence.digests)


_COLUMNS = [sessions.c[name] for name in AttestationSession.__struct_fields__]
_TOLD = (
    "provider", "upstream_model", "host", "shape", "scope", "signer", "algorithm", "tls_spki",
    "compose_hash", "os_image_hash", "tcb_status", "nonce",
)  # fmt: skip


def _columns(session: AttestationSession) -> dict[str, Any]:
    factors = [
        msgspec.structs.replace(one, detail=storable(one.detail, MAX_TEXT))
        for one in session.factors
    ]
    told = {name: storable(getattr(session, name), MAX_TEXT) for name in _TOLD}
    return {**msgspec.structs.asdict(session), **told, "factors": factors}


def _session(row: Row[Any]) -> AttestationSession:
    found = {name: getattr(row, name) for name in AttestationSession.__struct_fields__}
    return msgspec.convert(found, AttestationSession)
