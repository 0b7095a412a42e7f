"""Receipts in Postgres: begun as pending, settled once, found and listed, never changed after."""

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import msgspec
from sqlalchemy import Row, Select, bindparam, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from typing_extensions import override

from shared.attestation.verdict import Label, Reason
from shared.clock import utc
from shared.postgres.budgets import parse_uuid
from shared.postgres.evidence import put_evidence, read_evidence, storable
from shared.postgres.tables import receipts
from shared.transcript import Transcript

PENDING = "pending"
MAX_NAME = 500
"""Characters; longer names do not fit into an index."""
CURSOR = re.compile(r"[0-9a-f]{1,13}-[0-9a-f]{32}")
"""Microseconds since 1970 and a receipt, both in hex."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SettledReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a pending receipt becomes."""

    receipt_id: str
    label: Label
    reason: Reason = ""
    detail: str = ""
    session_id: str | None = None
    document: bytes
    """Signed, in its canonical form."""
    leaf_hash: bytes
    evidence: Mapping[str, str] = {}
    """The texts that the document names, by their digests."""


class ReceiptRow(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt as a list has it."""

    receipt_id: uuid.UUID
    request_id: uuid.UUID
    tenant: str
    user_id: str
    key_id: str | None
    model: str
    provider: str
    upstream_model: str
    tier: str
    kind: str
    endpoint: str
    streamed: bool
    label: str
    reason: str
    detail: str
    started_at: datetime
    ended_at: datetime
    settled_at: datetime | None
    session_id: uuid.UUID | None
    upstream_id: str
    log_index: int | None

    @property
    def cursor(self) -> "Cursor":
        return Cursor(self.started_at, self.receipt_id)


class StoredReceipt(NamedTuple):
    """A receipt with its document; None while it is pending."""

    row: ReceiptRow
    document: bytes | None
    leaf_hash: bytes | None


class ReceiptFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which receipts are asked for; None: of any. By when their calls began."""

    tenant: str | None = None
    label: str | None = None
    kind: str | None = None
    model: str | None = None
    provider: str | None = None
    request_id: uuid.UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""


class Cursor(NamedTuple):
    """The last receipt of a page: the next one begins below it."""

    started_at: datetime
    receipt_id: uuid.UUID

    @override
    def __str__(self) -> str:
        return f"{(self.started_at - _EPOCH) // _MICROSECOND:x}-{self.receipt_id.hex}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        if not CURSOR.fullmatch(text):
            raise ValueError("not a cursor")
        moment, _, receipt_id = text.partition("-")
        return cls(_EPOCH + int(moment, 16) * _MICROSECOND, uuid.UUID(receipt_id))


class Page(NamedTuple):
    rows: list[ReceiptRow]
    next: Cursor | None
    """None: there is nothing below."""


class ReceiptStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, transcripts: Collection[Transcript]) -> set[str]:
        """Adds those that are not there, as pending; the ids of those that were settled before."""
        by_id = {one.receipt_id: one for one in transcripts}
        if not by_id:
            return set()
        # In one order, so that two that begin the same cannot wait for each other.
        rows = [_columns(by_id[receipt_id]) for receipt_id in sorted(by_id)]
        ids = [row["receipt_id"] for row in rows]
        settled = select(receipts.c.receipt_id).where(
            receipts.c.receipt_id.in_(ids), receipts.c.label != PENDING
        )
        async with self._engine.begin() as connection:
            await connection.execute(insert(receipts).on_conflict_do_nothing(), rows)
            return {found.hex for found in await connection.scalars(settled)}

    async def settle(self, settled: Collection[SettledReceipt]) -> set[str]:
        """A label goes from pending to another, once; the ids of those that were settled here.

        Those that were not begun, or were settled before, are left as they are. Raises ValueError
        for evidence under what is no digest.
        """
        by_id = {uuid.UUID(one.receipt_id): one for one in settled}
        async with self._engine.begin() as connection:
            open_ones = await _lock_pending(connection, list(by_id))
            texts: dict[str, str] = {}
            for found in open_ones:
                texts.update(by_id[found].evidence)
            await put_evidence(connection, texts)
            if open_ones:
                await connection.execute(_SETTLE, [_settled(by_id[one]) for one in open_ones])
        return {found.hex for found in open_ones}

    async def find(self, receipt_id: str, tenant: str | None = None) -> StoredReceipt | None:
        """By its own id, or the newest of a request; of one tenant, or of any."""
        wanted = parse_uuid(receipt_id)
        query: Select[Any] = (
            select(*_ROW, receipts.c.document, receipts.c.leaf_hash)
            .where(or_(receipts.c.receipt_id == wanted, receipts.c.request_id == wanted))
            .order_by((receipts.c.receipt_id == wanted).desc(), *_NEWEST_FIRST)
            .limit(1)
        )
        if tenant is not None:
            query = query.where(receipts.c.tenant == tenant)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        document = None if row.document is None else row.document.encode()
        return StoredReceipt(_row(row), document, row.leaf_hash)

    async def page(self, wanted: ReceiptFilter, *, limit: int, after: Cursor | None = None) -> Page:
        """Newest first."""
        query = _filtered(wanted).order_by(*_NEWEST_FIRST).limit(limit + 1)
        if after is not None:
            query = query.where(tuple_(receipts.c.started_at, receipts.c.receipt_id) < after)
        async with self._engine.connect() as connection:
            rows = [_row(row) for row in await connection.execute(query)]
        return Page(rows[:limit], rows[limit - 1].cursor if len(rows) > limit else None)

    async def labels(self, request_ids: Collection[str]) -> dict[str, str]:
        """By request, 32 hex digits: the label of its newest receipt, where it has one."""
        ids = [found for one in request_ids if (found := parse_uuid(one)) is not None]
        query = (
            select(receipts.c.request_id, receipts.c.label)
            .ext(distinct_on(receipts.c.request_id))
            .where(receipts.c.request_id.in_(ids))
            .order_by(receipts.c.request_id, *_NEWEST_FIRST)
        )
        async with self._engine.connect() as connection:
            return {row.request_id.hex: row.label for row in await connection.execute(query)}

    async def evidence(self, digests: Collection[str]) -> dict[str, str]:
        """The texts of these digests (`sha256:…`). Raises ValueError for what is no digest."""
        async with self._engine.connect() as connection:
            return await read_evidence(connection, digests)


_ROW = [receipts.c[name] for name in ReceiptRow.__struct_fields__]
_NEWEST_FIRST = (receipts.c.started_at.desc(), receipts.c.receipt_id.desc())
_SETTLE = (
    update(receipts)
    .where(receipts.c.receipt_id == bindparam("of"), receipts.c.label == PENDING)
    .values(
        settled_at=func.now(),
        **{
            name: bindparam(f"new_{name}")
            for name in ("label", "reason", "detail", "session_id", "document", "leaf_hash")
        },
    )
)


async def _lock_pending(connection: AsyncConnection, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """In one order, so that two that settle the same cannot wait for each other."""
    if not ids:
        return []
    query = (
        select(receipts.c.receipt_id)
        .where(receipts.c.receipt_id.in_(ids), receipts.c.label == PENDING)
        .order_by(receipts.c.receipt_id)
        .with_for_update()
    )
    return list(await connection.scalars(query))


def _filtered(wanted: ReceiptFilter) -> Select[Any]:
    query = select(*_ROW)
    for name in ("tenant", "label", "kind", "model", "provider", "request_id"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(receipts.c[name] == value)
    if wanted.since is not None:
        query = query.where(receipts.c.started_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(receipts.c.started_at < wanted.until)
    return query


def _columns(transcript: Transcript) -> dict[str, Any]:
    names = ("model", "provider", "upstream_model", "tier", "endpoint", "upstream_id")
    return {
        **{name: storable(getattr(transcript, name), MAX_NAME) for name in names},
        "receipt_id": uuid.UUID(transcript.receipt_id),
        "request_id": uuid.UUID(transcript.request_id),
        "tenant": transcript.tenant,
        "user_id": transcript.user,
        "key_id": transcript.key_id,
        "kind": transcript.receipt_kind,
        "streamed": transcript.streamed,
        "started_at": utc(transcript.started_at),
        "ended_at": utc(transcript.ended_at),
    }


def _settled(one: SettledReceipt) -> dict[str, Any]:
    return {
        "of": uuid.UUID(one.receipt_id),
        "new_label": one.label,
        "new_reason": one.reason,
        "new_detail": storable(one.detail, MAX_NAME),
        "new_session_id": None if one.session_id is None else uuid.UUID(one.session_id),
        "new_document": one.document.decode(),
        "new_leaf_hash": one.leaf_hash,
    }


def _row(row: Row[Any]) -> ReceiptRow:
    return ReceiptRow(**{name: getattr(row, name) for name in ReceiptRow.__struct_fields__})
