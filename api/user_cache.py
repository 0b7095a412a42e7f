"""User records in this process, valid for a second each: of those who are billed by name."""

from collections.abc import Sequence
from typing import Protocol

from api.record_cache import RecordCache
from shared.clock import Clock
from shared.postgres.users import UserName, UserRecord


class UserReader(Protocol):
    """Raises one of STORE_ERRORS."""

    async def fetch_many(self, names: Sequence[UserName]) -> dict[UserName, UserRecord]: ...


class UserCache(RecordCache[UserName, UserRecord]):
    """By tenant and id. A key's own user comes with its key, and is not asked for here."""

    def __init__(self, reader: UserReader, clock: Clock) -> None:
        super().__init__(reader.fetch_many, clock, what="users")
