"""What every test of the transport starts from, on both event loops."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.integration.upstream_transport.upstream import Make
from workers.providers.http.pool import Limits
from workers.providers.transport import UpstreamTransport


@pytest.fixture(
    name="_asyncio_loop_factory",  # pytest-asyncio's: here every test runs on both loops
    autouse=True,
    params=[asyncio.new_event_loop, uvloop.new_event_loop],
    ids=["asyncio", "uvloop"],
)
def loop_factory(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(scope="module")
def system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # made once: reading the system's roots takes 40 ms


@pytest.fixture
def make(system_trust: ssl.SSLContext) -> Make:
    def transport(**limits: float) -> UpstreamTransport:
        return UpstreamTransport(ssl_context=system_trust, limits=Limits(**limits))  # type: ignore[arg-type]

    return transport


@pytest.fixture
async def transport(make: Make) -> AsyncIterator[UpstreamTransport]:
    """Afterwards nothing is open, and no callback raised where only the loop could see it."""
    unseen: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    async with make() as made:
        yield made
    assert made.open_connections == 0
    assert unseen == []
