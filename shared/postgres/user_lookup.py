"""Whether a user was ever known, asked of Postgres by whoever reads what users have used."""

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.tables import users


class UserLookup:
    """Raises one of STORE_ERRORS when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def exists(self, user_id: str) -> bool:
        """In any tenant; deleted users count."""
        if "\x00" in user_id:
            return False  # Postgres has no such text
        async with self._engine.connect() as connection:
            return bool(await connection.scalar(select(exists().where(users.c.user_id == user_id))))
