"""An environment of its own for a client that cannot share ours, or another release's.

It is made once from a lock file, beside the virtual environment's packages.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

RUN_CASES = Path(__file__).with_name("run_cases.py")
INSTALL_SECONDS = 180
UNREACHABLE = ("Failed to establish a new connection", "NameResolutionError", "timed out")
"""How pip says that an index cannot be reached."""


def python_with(name: str, lock: Path) -> Path:
    """The environment's own; the next run finds it there."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()[:16]
    folder = Path(sys.prefix) / f"{name}-e2e" / told
    if not folder.is_dir():
        _install(name, lock, folder)
    return folder / "bin" / "python"


def _install(name: str, lock: Path, folder: Path) -> None:
    """Beside its place, then moved there: a broken installation is never found."""
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    venv.create(work, symlinks=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet",
            "--python", work / "bin" / "python",
            "install", "--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes",
            "-r", lock,
        ],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(work)
        _refuse(name, done.stdout + done.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def _refuse(name: str, output: str) -> None:
    """On a laptop without a network there is nothing to test with; anything else is a failure."""
    if os.environ.get("CI") != "true" and any(word in output for word in UNREACHABLE):
        pytest.skip(f"{name.upper()} IS NOT TESTED: pip cannot reach its index")
    pytest.fail(f"pip cannot install {name}:\n{output}", pytrace=False)
