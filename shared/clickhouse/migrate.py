"""Brings a ClickHouse database to the present schema: numbered files, in order, each once.

ClickHouse has no transactional DDL. So each statement can be run again, a file is recorded after
its last statement, and two releases that run at once apply and record the same things twice, which
changes nothing. The release step holds a lock in Postgres around it all the same.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

import msgspec

from shared.clickhouse.client import ClickHouse

FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

RECORD_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32,
    name String,
    digest String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (number, name, digest)
"""
"""The digest is part of the key: two versions of a file never hide one another."""


class MigrationChanged(Exception):
    """A file that was applied has been edited since: what the database holds is unknown."""


class Migration(msgspec.Struct, frozen=True):
    number: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Statements end with a semicolon at the end of a line; comment lines are left out."""
        lines = [line for line in self.text.splitlines() if not line.lstrip().startswith("--")]
        return [one.strip() for one in re.split(r";\s*\n", "\n".join(lines) + "\n") if one.strip()]


def migrations() -> list[Migration]:
    """The files of this release, in order. Raises ValueError for a wrong name or a used number."""
    found = [
        Migration(_number(file.name), file.name.removesuffix(".sql"), file.read_text())
        for file in files("shared.clickhouse.migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    if len({one.number for one in found}) != len(found):
        raise ValueError("two ClickHouse migrations have the same number")
    return sorted(found, key=lambda one: one.number)


async def migrate(url: str, steps: Sequence[Migration] | None = None) -> list[str]:
    """Applies what is missing, making the database if need be; the names of what it applied.

    Raises MigrationChanged before it applies anything, ClickHouseAway when ClickHouse is away.
    A database that is newer than this release is left as it is.
    """
    steps = migrations() if steps is None else steps
    await _ensure_database(url)
    store = ClickHouse(url)
    try:
        await store.command(RECORD_TABLE)
        missing = _missing(steps, await _recorded(store))
        for step in missing:
            await _apply(store, step)
        return [step.name for step in missing]
    finally:
        await store.close()


async def _apply(store: ClickHouse, step: Migration) -> None:
    for statement in step.statements:
        await store.command(statement)
    # Recorded last: a crash before this line runs the repeatable statements again.
    await store.command(
        "INSERT INTO schema_migrations (number, name, digest)"
        " VALUES ({number:UInt32}, {name:String}, {digest:String})",
        {"number": step.number, "name": step.name, "digest": step.digest},
    )


async def _ensure_database(url: str) -> None:
    """Made only where it is missing: on a managed server we may not be allowed to make one."""
    wanted = ClickHouse(url).database
    server = ClickHouse(url, database="default")
    try:
        known = await server.query(
            "SELECT count() FROM system.databases WHERE name = {name:String}", {"name": wanted}
        )
        if not known[0][0]:
            await server.command(f"CREATE DATABASE IF NOT EXISTS `{wanted}`")
    finally:
        await server.close()


async def _recorded(store: ClickHouse) -> set[tuple[int, str]]:
    rows = await store.query("SELECT DISTINCT number, digest FROM schema_migrations")
    return {(number, digest) for number, digest in rows}


def _missing(steps: Sequence[Migration], recorded: set[tuple[int, str]]) -> list[Migration]:
    numbers = {number for number, _ in recorded}
    for step in steps:
        digests = {digest for number, digest in recorded if number == step.number}
        if digests - {step.digest}:
            raise MigrationChanged(f"{step.name} was applied with other contents")
    return [step for step in steps if step.number not in numbers]


def _number(file_name: str) -> int:
    match = FILE_NAME.fullmatch(file_name)
    if match is None:
        raise ValueError(f"not a migration's name: {file_name!r}")
    return int(match[1])
