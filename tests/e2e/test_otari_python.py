"""Otari's own client, unmodified, managing the real processes: a release of each root it calls.

The cases are in otari/cases.py; one Python process runs them all for each release, in an
environment of its own.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.own_environment import RUN_CASES, python_with
from tests.e2e.started import StartedGateway

SOURCES = Path(__file__).parent / "otari"
CASES = re.findall(r"^def ([a-z]\w*)", (SOURCES / "cases.py").read_text(), re.M)
RELEASES = ["0.3", "0.4"]
"""The first calls /v1, the second /api/v1."""
RUN_SECONDS = 120


@pytest.fixture(scope="module", params=RELEASES)
def failures(gateway: StartedGateway, request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Of each case that was run: why it failed, if it did."""
    ready = gateway.ready
    python = python_with("otari", SOURCES / f"requirements-{request.param}.lock")
    done = subprocess.run(
        [python, RUN_CASES, SOURCES],
        env={
            "GATEWAY_BASE_URL": ready.base_url,
            "GATEWAY_API_KEY": ready.api_key,
            "GATEWAY_MASTER_KEY": ready.master_key,
        },
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {result["name"]: result["failure"] for result in results}


def test_every_case_is_run(failures: dict[str, str | None]) -> None:
    assert sorted(failures) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_otaris_client_finds(case: str, failures: dict[str, str | None]) -> None:
    failure = failures[case]
    assert failure is None, failure
