"""The official `openai` Python client, unmodified, against the real processes."""

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.started import StartedGateway


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[OpenAI]:
    ready = gateway.ready
    with OpenAI(
        base_url=f"{ready.base_url}/v1", api_key=ready.api_key, max_retries=0, timeout=30
    ) as opened:
        yield opened


@pytest.fixture
async def async_client(gateway: StartedGateway) -> AsyncIterator[AsyncOpenAI]:
    ready = gateway.ready
    async with AsyncOpenAI(
        base_url=f"{ready.base_url}/v1", api_key=ready.api_key, max_retries=0, timeout=30
    ) as opened:
        yield opened
