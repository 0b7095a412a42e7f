"""LangChain's `langchain-openai`, unmodified, against the real processes.

The cases are in langchain/cases.py; one Python process runs them all, in an environment that is
made once from langchain/requirements.lock, beside the virtual environment's packages.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.own_environment import RUN_CASES, python_with
from tests.e2e.started import StartedGateway

SOURCES = Path(__file__).parent / "langchain"
CASES = re.findall(r"^def ([a-z]\w*)", (SOURCES / "cases.py").read_text(), re.M)
RUN_SECONDS = 120


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("langchain", SOURCES / "requirements.lock")


@pytest.fixture(scope="module")
def failures(gateway: StartedGateway, python: Path) -> dict[str, str | None]:
    """Of each case that was run: why it failed, if it did."""
    ready = gateway.ready
    done = subprocess.run(
        [python, RUN_CASES, SOURCES],
        env={"GATEWAY_BASE_URL": f"{ready.base_url}/v1", "GATEWAY_API_KEY": ready.api_key},
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
def test_langchain_gets(case: str, failures: dict[str, str | None]) -> None:
    failure = failures[case]
    assert failure is None, failure
