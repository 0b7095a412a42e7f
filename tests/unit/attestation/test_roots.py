"""Roots are read from a file that says all of them, and from no other."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.attestation.roots import NVIDIA_ROOT_SHA256, PRODUCTION, configured, load
from tests.minted import tee

MINTED: dict[str, Any] = msgspec.to_builtins(tee().pki.roots)


def written(folder: Path, document: object) -> Path:
    file = folder / "roots.json"
    file.write_text(json.dumps(document))
    return file


def test_what_the_simulator_mints_is_read_as_it_was_written(tmp_path: Path):
    assert load(written(tmp_path, MINTED)) == tee().pki.roots


def test_the_verifiers_own_root_can_be_named_beside_another_of_nvidias(tmp_path: Path):
    found = load(written(tmp_path, {**MINTED, "intel_der": None}))
    assert (found.intel_der, found.nvidia_sha256) == (None, MINTED["nvidia_sha256"])


@pytest.mark.parametrize("document", [
    {}, {"error": {}}, [], 7, None, {**MINTED, "more": 1}, {**MINTED, "nvidia_sha256": "ab"},
    {**MINTED, "intel_der": "bm8gY2VydGlmaWNhdGU="}, {**MINTED, "intel_der": "!"},
    {**MINTED, "name": ""}, {**MINTED, "nras_issuer": ""}, {**MINTED, "synthetic": "no"},
])  # fmt: skip
def test_another_file_holds_no_roots(tmp_path: Path, document: object):
    with pytest.raises(ValueError, match="holds no roots"):
        load(written(tmp_path, document))


@pytest.mark.parametrize("name", sorted(MINTED))
def test_no_member_has_a_default(tmp_path: Path, name: str):
    fewer = {key: value for key, value in MINTED.items() if key != name}
    with pytest.raises(ValueError, match=name):
        configured(str(written(tmp_path, fewer)))


def test_productions_stand_where_no_file_is_named():
    assert configured("") is PRODUCTION
    with pytest.raises(OSError, match="nowhere"):
        configured("/nowhere/roots.json")


def test_a_receipt_names_roots_by_one_digest():
    """As docs/receipts.md has it."""
    told = hashlib.sha256(b"built in" + NVIDIA_ROOT_SHA256.encode()).hexdigest()
    assert PRODUCTION.digest == told
    minted = tee().pki.roots
    whole = (minted.intel_der or b"") + minted.nvidia_sha256.encode()
    assert minted.digest == hashlib.sha256(whole).hexdigest()
