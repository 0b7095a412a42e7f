"""LangChain's `langchain-openai`, unmodified, against the real processes.

The cases are in langchain/cases.py; one Python process runs them all, in an environment that is
made once from langchain/requirements.lock, beside the virtual environment's packages.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.e2e.started import StartedGateway

SOURCES = Path(__file__).parent / "langchain"
LOCK = SOURCES / "requirements.lock"
CASES = re.findall(r"^def ([a-z]\w*)", (SOURCES / "cases.py").read_text(), re.M)
INSTALL_SECONDS = 180
RUN_SECONDS = 120
UNREACHABLE = ("Failed to establish a new connection", "NameResolutionError", "timed out")
"""How pip says that an index cannot be reached."""


@pytest.fixture(scope="module")
def python() -> Path:
    """The environment's own; the next run finds it there."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = hashlib.sha256(LOCK.read_bytes() + version.encode()).hexdigest()[:16]
    folder = Path(sys.prefix) / "langchain-e2e" / told
    if not folder.is_dir():
        install(folder)
    return folder / "bin" / "python"


def install(folder: Path) -> None:
    """Beside its place, then moved there: a broken installation is never found."""
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    venv.create(work, symlinks=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet",
            "--python", work / "bin" / "python",
            "install", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", LOCK,
        ],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(work)
        refuse(done.stdout + done.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def refuse(output: str) -> None:
    """On a laptop without a network there is nothing to test with; anything else is a failure."""
    if os.environ.get("CI") != "true" and any(word in output for word in UNREACHABLE):
        pytest.skip("LANGCHAIN IS NOT TESTED: pip cannot reach its index")
    pytest.fail(f"pip cannot install LangChain:\n{output}", pytrace=False)


@pytest.fixture(scope="module")
def failures(gateway: StartedGateway, python: Path) -> dict[str, str | None]:
    """Of each case that was run: why it failed, if it did."""
    ready = gateway.ready
    done = subprocess.run(
        [python, SOURCES / "run.py"],
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
