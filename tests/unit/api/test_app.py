"""What the application does around its services, apart from any store."""

import asyncio
import gc
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from api.app import MasterKeyUnsafe, _lifespan, check_master_key
from api.drain import Drain
from shared.catalog import Catalog
from shared.document import Auth, Document


class Dying:
    """Services one of whose loops dies while requests are served."""

    def __init__(self) -> None:
        self.drain = Drain()
        self.die = asyncio.Event()

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop())
            yield

    async def _loop(self) -> None:
        await self.die.wait()
        raise RuntimeError("a loop died")


async def test_a_dead_loop_takes_the_process_down_instead_of_letting_requests_hang():
    services = Dying()

    async def serve() -> None:
        async with _lifespan(services, lambda: None, FastAPI()):  # type: ignore[arg-type]
            services.die.set()
            await asyncio.sleep(3600)

    with capture_logs() as logs, pytest.raises(ExceptionGroup):
        await serve()
    gc.unfreeze()
    assert services.drain.failed
    assert services.drain.draining
    assert [line["action"] for line in logs] == ["api_failed"]


class Moded:
    def __init__(self, mode: str) -> None:
        document = Document(auth=Auth(mode=mode))  # type: ignore[arg-type]
        self.catalogs = type("Watch", (), {"current": Catalog(document)})


@pytest.mark.parametrize(
    ("mode", "master_key", "is_safe"),
    [
        ("required", "a-long-random-key", True),
        ("required", "", False),
        ("required", "changeme", False),
        ("required", "ChangeMe", False),
        ("open", "", True),
        ("open", "changeme", False),
    ],
)
def test_a_process_does_not_start_under_a_master_key_that_protects_nothing(
    mode, master_key, is_safe
):
    services = Moded(mode)
    if is_safe:
        check_master_key(services, master_key)  # type: ignore[arg-type]
    else:
        with pytest.raises(MasterKeyUnsafe):
            check_master_key(services, master_key)  # type: ignore[arg-type]
