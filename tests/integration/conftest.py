"""What several tests of this folder start from."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.clock import StillClock
from shared.postgres.budgets import BudgetStore
from shared.postgres.engine import make_engine
from shared.postgres.keys import KeyStore
from shared.postgres.migrate import migrate
from shared.postgres.users import UserStore
from tests.integration.moment import NOW
from tests.integration.queue import Queue, open_queue


@pytest.fixture
async def queue(valkey_db: str) -> AsyncIterator[Queue]:
    async with open_queue(valkey_db) as opened:
        yield opened


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """On a database that has every table."""
    engine = make_engine(database_url, "test")
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def clock() -> StillClock:
    return StillClock(NOW.timestamp())


@pytest.fixture
def users(engine: AsyncEngine, clock: StillClock) -> UserStore:
    return UserStore(engine, clock)


@pytest.fixture
def budgets(engine: AsyncEngine, clock: StillClock) -> BudgetStore:
    return BudgetStore(engine, clock)


@pytest.fixture
def keys(engine: AsyncEngine, clock: StillClock) -> KeyStore:
    return KeyStore(engine, clock)
