"""Which of the two pytest processes of `make test` runs which tests."""

import os

import pytest
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

GATEWAYS = "tests/e2e"


def share(nodeid: str, *, valkey_is_given: bool) -> str:
    """Tests of one share run in one process, one after another.

    Whole gateways are timed and killed: there is never a second one beside them. A Valkey that is
    given is emptied before each test that uses it.
    """
    file = nodeid.partition("::")[0]
    if file.startswith(f"{GATEWAYS}/"):
        return GATEWAYS
    return "given servers" if valkey_is_given else file


class Shares(LoadFileScheduling):  # type: ignore[misc]
    @override
    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid, valkey_is_given="VALKEY_URL" in os.environ)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shares:
    return Shares(config, log)
