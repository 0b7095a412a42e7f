"""A process does not start with a file of roots that holds none."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 30


@pytest.mark.parametrize("module", ["workers", "workers.background"])
def test_a_file_that_holds_no_roots_keeps_a_process_from_starting(module: str, tmp_path: Path):
    file = tmp_path / "roots.json"
    file.write_text('{"error": {}}')
    environment = {
        "PATH": os.environ["PATH"], "GATEWAY_ATTESTATION_ROOTS": str(file),
        "GATEWAY_SEAL_KEYS": base64.b64encode(bytes(32)).decode(),
    }  # fmt: skip
    refused = subprocess.run(
        [sys.executable, "-m", module], env=environment, cwd=ROOT, capture_output=True, text=True,
        timeout=START_SECONDS, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert f"{file} holds no roots" in refused.stdout + refused.stderr
