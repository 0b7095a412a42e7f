"""What holds for all tests: the servers' fixtures, and the quiet in which unit tests run."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from blockbuster import blockbuster_ctx

pytest_plugins = ["tests.servers", "tests.shares"]

_UNIT_TESTS = Path(__file__).parent / "unit"
_OUR_PACKAGES = ["api", "workers", "shared"]


def _refuse(*_arguments: object) -> NoReturn:
    raise AssertionError("a unit test must not open a socket: it belongs into tests/integration")


@pytest.fixture(autouse=True)
def _quiet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A unit test opens no socket, and our code never blocks the event loop in it."""
    if _UNIT_TESTS not in request.path.parents:
        yield
        return
    for method in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, method, _refuse)
    with blockbuster_ctx(_OUR_PACKAGES):
        yield
