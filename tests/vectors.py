"""Recorded evidence and published vectors, which live outside of this repository."""

import os
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent.parent
VECTORS = Path(os.environ.get("OLLM_VECTORS") or _HERE.parent / "shared" / "vectors")


def vector(name: str) -> bytes:
    """Of a file such as `near-model-ecdsa-addr/meta.json`; skips the test where it is absent."""
    path = VECTORS / name
    if not path.is_file():
        pytest.skip(f"no vectors at {VECTORS}: set OLLM_VECTORS to their folder")
    return path.read_bytes()
