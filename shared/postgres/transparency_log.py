"""The transparency log in Postgres: receipts at gapless indexes, their tree, and its signed heads.

Nothing in it is ever changed or deleted. Two who append at once cannot fork it: one of them finds
the lock taken, and without the lock the keys of the tables would refuse the second leaf of an index.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.attestation.merkle import (
    CompactRange,
    Place,
    Span,
    consistency_spans,
    inclusion_spans,
    places,
    proof_of,
)
from shared.attestation.signing import ReceiptKey, TreeHead
from shared.clock import Clock
from shared.errors import InvalidRequest
from shared.postgres.tables import log_heads, log_nodes, receipt_keys, receipts

LOCK_KEY = 0x6F6C6C6F
"""Two after the key of the schema migrations."""


class LogBroken(Exception):
    """What is stored of the tree does not lead to the root that was signed."""


class KnownKey(NamedTuple):
    key_id: str
    public_key: bytes
    first_used_at: datetime


class LogReader:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away.

    Sizes above the newest head's are refused with InvalidRequest.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def head(self, size: int | None = None) -> TreeHead | None:
        """The newest, or the one that was signed over a tree of this size."""
        async with self._engine.connect() as connection:
            return await _head(connection, size)

    async def keys(self) -> list[KnownKey]:
        """Every key that a head was signed with, and so the receipts in it; the newest first."""
        query = select(*_KEY).order_by(receipt_keys.c.first_used_at.desc(), receipt_keys.c.key_id)
        async with self._engine.connect() as connection:
            return [KnownKey(*row) for row in await connection.execute(query)]

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that a leaf is in the tree of a size."""
        if not 0 <= index < size:
            raise InvalidRequest("The tree of this size has no such leaf.", param="tree_size")
        return await self._proof(inclusion_spans(index, size), size)

    async def consistency(self, first: int, second: int) -> list[bytes]:
        """The proof that the tree of one size is the beginning of that of another."""
        if not 0 <= first <= second:
            raise InvalidRequest("'first' must not be above 'second'.", param="first")
        return await self._proof(consistency_spans(first, second), second, param="second")

    async def root(self, size: int) -> bytes:
        """Of the tree of a size, signed or not."""
        async with self._engine.connect() as connection:
            await _require(connection, size)
            return (await _range(connection, size)).root()

    async def _proof(
        self, spans: Sequence[Span], size: int, *, param: str = "tree_size"
    ) -> list[bytes]:
        wanted = [place for span in spans for place in places(*span)]
        async with self._engine.connect() as connection:
            await _require(connection, size, param=param)
            return proof_of(spans, await _nodes(connection, wanted))


class TransparencyLog(LogReader):
    """Appends, too: one transaction, which leaves all of it or nothing, killed anywhere."""

    def __init__(self, engine: AsyncEngine, key: ReceiptKey, clock: Clock) -> None:
        super().__init__(engine)
        self._key = key
        self._clock = clock

    async def append(self, limit: int) -> TreeHead | None:
        """Takes up to `limit` settled receipts into the log, and signs it as it stands then.

        None: there is nothing to take, or another process is at it. Raises LogBroken.
        """
        async with self._engine.begin() as connection:
            if not await connection.scalar(select(func.pg_try_advisory_xact_lock(LOCK_KEY))):
                return None
            # The head first: whoever has grown the log since, the keys of the tables would tell.
            head = await _head(connection)
            waiting = (await connection.execute(_UNLOGGED.limit(limit))).all()
            if not waiting:
                return None
            tree = await _tree(connection, head)
            await _add(connection, tree, waiting)
            return await self._sign(connection, tree)

    async def _sign(self, connection: AsyncConnection, tree: CompactRange) -> TreeHead:
        head = self._key.sign_head(tree.size, tree.root(), self._clock.now())
        key = {"key_id": self._key.key_id, "public_key": self._key.public_key}
        stored = {
            "tree_size": head.tree_size,
            "root_hash": tree.root(),
            "signed_at": head.timestamp,
            "key_id": head.key_id,
            "signature": bytes.fromhex(head.signature),
        }
        await connection.execute(insert(receipt_keys).values(key).on_conflict_do_nothing())
        await connection.execute(insert(log_heads).values(stored))
        return head


_KEY = [receipt_keys.c[name] for name in KnownKey._fields]
_UNLOGGED = (
    select(receipts.c.receipt_id, receipts.c.leaf_hash)
    .where(receipts.c.log_index.is_(None), receipts.c.leaf_hash.is_not(None))
    .order_by(receipts.c.settled_at, receipts.c.receipt_id)
)
_INDEX = (
    update(receipts)
    .where(receipts.c.receipt_id == bindparam("of"))
    .values(log_index=bindparam("at"))
)


async def _add(connection: AsyncConnection, tree: CompactRange, waiting: Sequence[Any]) -> None:
    first = tree.size
    made = [node for row in waiting for node in tree.append(row.leaf_hash)]
    indexes = [{"of": row.receipt_id, "at": first + n} for n, row in enumerate(waiting)]
    nodes = [{**place._asdict(), "hash": found} for place, found in made]
    await connection.execute(_INDEX, indexes)
    await connection.execute(insert(log_nodes), nodes)


async def _tree(connection: AsyncConnection, head: TreeHead | None) -> CompactRange:
    """As it was signed last. Raises LogBroken: what was tampered with is not signed again."""
    tree = await _range(connection, 0 if head is None else head.tree_size)
    if head is not None and tree.root().hex() != head.root_hash:
        raise LogBroken(f"the tree of {head.tree_size} leaves has another root than was signed")
    return tree


async def _range(connection: AsyncConnection, size: int) -> CompactRange:
    wanted = places(0, size)
    nodes = await _nodes(connection, wanted)
    return CompactRange(size, [nodes[place] for place in wanted])


async def _nodes(connection: AsyncConnection, wanted: Iterable[Place]) -> dict[Place, bytes]:
    """Raises LogBroken where one is missing."""
    asked = set(wanted)
    if not asked:
        return {}
    key = tuple_(log_nodes.c.level, log_nodes.c.position)
    query = select(log_nodes.c.level, log_nodes.c.position, log_nodes.c.hash)
    rows = await connection.execute(query.where(key.in_(sorted(asked))))
    found = {Place(row.level, row.position): row.hash for row in rows}
    if missing := asked - found.keys():
        raise LogBroken(f"the tree lacks {len(missing)} nodes")
    return found


async def _require(connection: AsyncConnection, size: int, *, param: str = "tree_size") -> None:
    """`param`: where the size was asked for."""
    head = await _head(connection)
    if size > (0 if head is None else head.tree_size):
        raise InvalidRequest("The log is not that large yet.", param=param)


async def _head(connection: AsyncConnection, size: int | None = None) -> TreeHead | None:
    query = select(log_heads).order_by(log_heads.c.tree_size.desc()).limit(1)
    if size is not None:
        query = query.where(log_heads.c.tree_size == size)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return TreeHead(
        tree_size=row.tree_size,
        root_hash=row.root_hash.hex(),
        timestamp=row.signed_at,
        key_id=row.key_id,
        signature=row.signature.hex(),
    )
