"""A whole gateway for the tests of this folder: `gateway up`, started once, as a user would."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.started import StartedGateway

LEASE_SECONDS = "1"
"""A killed process is noticed after a lease: tests do not wait for the fifteen seconds of a
deployment."""


@pytest.fixture(scope="session")
def gateway() -> Iterator[StartedGateway]:
    """Two api and two worker processes over real servers and the simulator.

    Tests share it and may kill its processes, which come back; they must not stop it.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-e2e-") as name:
        folder = Path(name)
        # Under root, Postgres runs as an account that must be able to pass through.
        folder.chmod(0o711)
        with StartedGateway(
            folder / "gateway",
            "--api=2",
            "--workers=2",
            environment={"GATEWAY_LEASE_SECONDS": LEASE_SECONDS, "GATEWAY_DRAIN_SECONDS": "10"},
        ) as started:
            yield started
