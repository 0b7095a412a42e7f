"""What several tests of this folder start from."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.queue import Queue, open_queue


@pytest.fixture
async def queue(valkey_db: str) -> AsyncIterator[Queue]:
    async with open_queue(valkey_db) as opened:
        yield opened
