"""`gateway receipts verify`: 0 for what is proven, 1 for what is not, 2 for what cannot be read."""

import json
from functools import cache
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from api.cli import commands
from shared.attestation.evidence import Evidence
from shared.attestation.receipt import evidence_texts
from shared.attestation.roots import PRODUCTION
from shared.attestation.verdict import Verdict
from tests.exports import KEY, document_of, export_of, log_of, signed, verdict_of
from tests.minted import NOW, Minted
from tests.minted import minted as mint

HEX_KEY = KEY.public_key.hex()
ORDER = ("request_hash", "quote_valid", "gpu_genuine", "trust_root")


@cache
def minted(model: str = "sim/chat") -> Minted:
    return mint("phala", model=model)


@cache
def export(model: str = "sim/chat") -> bytes:
    call = minted(model)
    document = signed(document_of(call, verdict_of(call)))
    return export_of(document, evidence_texts(call.evidence), log=log_of(document))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "roots.json").write_bytes(msgspec.json.encode(minted().roots))
    (tmp_path / "receipt.json").write_bytes(export())
    return tmp_path


def run(folder: Path, *arguments: str, raw: bytes | None = None) -> Result:
    if raw is not None:
        (folder / "receipt.json").write_bytes(raw)
    file = str(folder / "receipt.json")
    return CliRunner().invoke(commands(["receipts"]), ["receipts", "verify", file, *arguments])


def synthetic(folder: Path) -> list[str]:
    return ["--roots", str(folder / "roots.json"), "--allow-synthetic"]


def test_an_honest_receipt_ends_with_0_and_shows_every_factor(folder: Path):
    found = run(folder, *synthetic(folder), "--gateway-key", HEX_KEY)
    assert found.exit_code == 0
    places = [found.output.index(f" {name} ") for name in ORDER]
    assert places == sorted(places)
    assert found.output.splitlines()[-1].startswith("SYNTHETIC, NO PROOF: verified")
    assert "request:  the client's own bytes are what is signed." in found.output


def test_it_can_be_read_by_programs(folder: Path):
    found = run(folder, *synthetic(folder), "--json")
    told = json.loads(found.output)
    assert (told["holds"], told["verdict"]["label"], told["synthetic"]) == (True, "verified", True)
    assert {check["name"] for check in told["checks"]} == {
        "evidence", "gateway_signature", "log", "factors", "label"
    }  # fmt: skip


def test_it_reads_the_standard_input(folder: Path):
    found = CliRunner().invoke(
        commands(["receipts"]), ["receipts", "verify", "-", *synthetic(folder)], input=export()
    )
    assert found.exit_code == 0


def test_synthetic_roots_are_not_taken_without_being_allowed(folder: Path):
    found = run(folder, "--roots", str(folder / "roots.json"))
    assert found.exit_code == 2
    assert "--allow-synthetic" in found.output


def test_under_the_built_in_roots_a_synthetic_receipt_is_not_verified(folder: Path):
    for arguments in ([], ["--allow-synthetic"]):
        found = run(folder, *arguments)
        assert found.exit_code == 1
        assert "NOT VERIFIED: failed (quote_valid)" in found.output
        assert "SYNTHETIC" in found.output


@pytest.mark.parametrize("model", ["tee-debug", "tee-wrong-response"])
def test_a_failed_receipt_ends_with_1(folder: Path, model: str):
    found = run(folder, *synthetic(folder), raw=export(model))
    assert found.exit_code == 1
    assert "NOT VERIFIED: failed" in found.output


@pytest.mark.parametrize("arguments", [
    ["--now", str(NOW + 40 * 86_400)], ["--gateway-key", "00" * 32], ["--kind", "zdr"],
])  # fmt: skip
def test_another_time_another_key_or_another_kind_ends_with_1(folder: Path, arguments: list[str]):
    found = run(folder, *synthetic(folder), *arguments)
    assert found.exit_code == 1
    assert "NOT VERIFIED" in found.output


def test_the_gateways_word_for_the_step_between_is_told(folder: Path):
    call = minted()
    changed = msgspec.structs.replace(
        call.transcript, client_request=msgspec.structs.replace(
            call.transcript.client_request, sha256="1" * 64
        ),
    )  # fmt: skip
    other = Minted(transcript=changed, evidence=call.evidence, roots=call.roots)
    document = signed(document_of(other, verdict_of(other)))
    raw = export_of(document, evidence_texts(call.evidence))
    found = run(folder, *synthetic(folder), raw=raw)
    assert found.exit_code == 0
    assert "the gateway's word" in found.output


def test_a_policy_record_holds_only_where_one_is_asked_for(folder: Path):
    call = Minted(transcript=minted().transcript, evidence=Evidence(), roots=PRODUCTION)
    document = signed(document_of(call, Verdict("n/a"), kind="zdr"))
    raw = export_of(document, {})
    for arguments, code in (([], 1), (["--kind", "zdr"], 0)):
        found = run(folder, *arguments, raw=raw)
        assert found.exit_code == code
        assert "Contract, not proof" in found.output


@pytest.mark.parametrize("raw", [b"", b"junk", b"{}", b"[1"])
def test_what_cannot_be_read_ends_with_2(folder: Path, raw: bytes):
    assert run(folder, raw=raw).exit_code == 2


@pytest.mark.parametrize("arguments", [
    ["--now", "nan"], ["--now", "inf"], ["--gateway-key", "abc"], ["--gateway-key", "zz" * 32],
    ["--roots", "/nowhere/roots.json"], ["--kind", "other"],
])  # fmt: skip
def test_what_cannot_be_meant_ends_with_2(folder: Path, arguments: list[str]):
    assert run(folder, *arguments).exit_code == 2


def test_a_file_that_is_not_there_or_holds_other_roots_ends_with_2(folder: Path):
    (folder / "roots.json").write_bytes(b"{]")
    assert run(folder, "--roots", str(folder / "roots.json")).exit_code == 2
    (folder / "receipt.json").unlink()
    assert run(folder).exit_code == 2


def test_a_file_cannot_write_to_the_terminal(folder: Path):
    document = signed(document_of(minted(), verdict_of(minted()), model="\x1b[2Jverified\n\r"))
    found = run(
        folder, *synthetic(folder), raw=export_of(document, evidence_texts(minted().evidence))
    )
    assert "\x1b" not in found.output
    assert "?[2Jverified" in found.output
