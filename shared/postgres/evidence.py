"""Evidence in Postgres: each text once, under its SHA-256, for all receipts that rest on it."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.postgres.tables import evidence

PREFIX = "sha256:"
"""Of a digest as documents write it; 64 lowercase hex digits follow."""


async def put_evidence(connection: AsyncConnection, texts: Mapping[str, str]) -> None:
    """Keeps what is not there yet. Raises ValueError for what is no digest."""
    wanted = {_raw(digest): text for digest, text in texts.items()}
    # Most is there: a report serves many receipts, and is too long to be sent for nothing.
    known = await _known(connection, list(wanted)) if wanted else set()
    rows = [
        {"digest": digest, "content": text.encode()}
        # In one order, so that two writers of the same texts cannot wait for each other.
        for digest, text in sorted(wanted.items())
        if digest not in known
    ]
    if rows:
        await connection.execute(insert(evidence).on_conflict_do_nothing(), rows)


async def read_evidence(connection: AsyncConnection, digests: Collection[str]) -> dict[str, str]:
    """By digest; those that are not kept are left out. Raises ValueError for what is no digest."""
    wanted = [_raw(digest) for digest in digests]
    if not wanted:
        return {}
    query = select(evidence.c.digest, evidence.c.content).where(evidence.c.digest.in_(wanted))
    return {
        PREFIX + row.digest.hex(): row.content.decode() for row in await connection.execute(query)
    }


async def _known(connection: AsyncConnection, digests: Sequence[bytes]) -> set[bytes]:
    query = select(evidence.c.digest).where(evidence.c.digest.in_(digests))
    return set(await connection.scalars(query))


def _raw(digest: str) -> bytes:
    found = bytes.fromhex(digest.removeprefix(PREFIX))
    if len(found) != 32 or not digest.startswith(PREFIX):
        raise ValueError("not a digest")
    return found


def storable(text: str, most: int) -> str:
    """What a text column can hold of a text of a stranger's: no NUL, no half characters, cut."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
