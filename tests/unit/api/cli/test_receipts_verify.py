"""`gateway receipts verify`: 0 for what is proven, 1 for what is not, 2 for what cannot be read."""

import json
from functools import cache
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from api.cli import commands
from shared.attestation.evidence import Evidence
from shared.attestation.policy import Policy
from shared.attestation.receipt import evidence_texts
from shared.attestation.roots import PRODUCTION
from shared.attestation.verdict import Verdict
from tests.exports import DEFAULT, KEY, document_of, export_of, log_of, signed, verdict_of
from tests.minted import NOW, Minted
from tests.minted import minted as mint

HEX_KEY = KEY.public_key.hex()
ORDER = ("request_hash", "quote_valid", "gpu_genuine", "trust_root")


@cache
def minted(model: str = "sim/chat") -> Minted:
    return mint("phala", model=model)


@cache
def export(model: str = "sim/chat", policy: Policy = DEFAULT, *, logged: bool = True) -> bytes:
    call = minted(model)
    document = signed(document_of(call, verdict_of(call, policy), policy))
    log = log_of(document) if logged else None
    return export_of(document, evidence_texts(call.evidence), log=log)


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
    told = "SYNTHETIC, NO PROOF: verified; all of it comes out again."
    assert found.output.splitlines()[-1] == told
    assert "request:  the client's own bytes are what is signed." in found.output


HOLDS, WHOSE = "that the gateway's log holds it", "whose key signed it"


@pytest.mark.parametrize(("arguments", "logged", "missing"), [
    (["--gateway-key", HEX_KEY], True, ""), (["--gateway-key", HEX_KEY], False, HOLDS),
    ([], True, f"{HOLDS}; {WHOSE}"), ([], False, f"{HOLDS}; {WHOSE}"),
])  # fmt: skip
def test_the_last_line_says_what_is_not_shown(
    folder: Path, arguments: list[str], logged: bool, missing: str
):
    found = run(folder, *synthetic(folder), *arguments, raw=export(logged=logged))
    assert found.exit_code == 0
    last = found.output.splitlines()[-1]
    assert last.partition("comes out again.")[2] == (f" NOT SHOWN: {missing}." if missing else "")


def test_a_log_can_be_required_under_a_key_that_is_known(folder: Path):
    asked = [*synthetic(folder), "--require-log"]
    keyed = [*asked, "--gateway-key", HEX_KEY]
    assert run(folder, *keyed).exit_code == 0
    found = run(folder, *keyed, raw=export(logged=False))
    assert found.exit_code == 1
    assert "log (the file has no proof from the log)" in found.output.splitlines()[-1]
    unmeant = run(folder, *asked)
    assert (unmeant.exit_code, "--gateway-key" in unmeant.output) == (2, True)


LAX = Policy(allowed_tcb=("UpToDate", "OutOfDate"), demoted=("gpu_measurements",))


def test_the_policy_is_printed_and_a_lax_one_must_be_accepted(folder: Path):
    asked = [*synthetic(folder), "--gateway-key", HEX_KEY]
    found = run(folder, *asked, raw=export("tee-out-of-date", LAX))
    laxer = "TCB OutOfDate, gpu_measurements not needed"
    assert found.exit_code == 1
    assert found.output.splitlines()[-1] == (
        "NOT VERIFIED: the machine's evidence holds, but not the rest; what fails is policy"
        f" (the gateway's is laxer than the default: {laxer})."
    )
    policy = (
        "the gateway's: TCB UpToDate, OutOfDate; not needed: gpu_measurements; reports of 300 s"
    )
    assert policy in found.output
    accepted = run(folder, *asked, "--accept-policy")
    assert accepted.exit_code == 0
    assert f"verified by a policy laxer than the default ({laxer});" in accepted.output


@pytest.mark.parametrize(("own", "code", "last"), [
    (["--policy", "default"], 1, "NOT VERIFIED: failed (tcb_status)."),
    (["--allowed-tcb", "UpToDate"], 1, "policy (the gateway's is laxer"),
    (["--allowed-tcb", "UpToDate", "--no-demoted"], 1, "NOT VERIFIED: failed (tcb_status)."),
    (["--allowed-tcb", "UpToDate,OutOfDate", "--no-demoted"], 0, "verified; all of it"),
])  # fmt: skip
def test_an_auditor_has_a_policy_of_their_own(folder: Path, own: list[str], code: int, last: str):
    asked = [*synthetic(folder), "--gateway-key", HEX_KEY, *own]
    found = run(folder, *asked, raw=export("tee-out-of-date", LAX))
    assert found.exit_code == code
    assert last in found.output.splitlines()[-1]
    assert "policy    yours: TCB UpToDate" in found.output


def test_it_can_be_read_by_programs(folder: Path):
    found = run(folder, *synthetic(folder), "--json")
    told = json.loads(found.output)
    assert (told["holds"], told["verdict"]["label"], told["synthetic"]) == (True, "verified", True)
    assert {check["name"] for check in told["checks"]} == {
        "evidence", "gateway_signature", "log", "factors", "label", "policy", "times"
    }  # fmt: skip
    assert (told["not_shown"], told["laxer"]) == ([HOLDS, WHOSE], [])
    assert told["conclusion"].endswith(f"NOT SHOWN: {HOLDS}; {WHOSE}.")
    default = json.loads(msgspec.json.encode(DEFAULT))
    assert told["policy"] == told["stored_policy"] == default


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
    raw, key = export_of(document, {}, log=log_of(document)), ["--gateway-key", HEX_KEY]
    for arguments, code in ((key, 1), (["--kind", "zdr"], 1), ([*key, "--kind", "zdr"], 0)):
        found = run(folder, *arguments, raw=raw)
        assert found.exit_code == code
        assert "Contract, not proof" in found.output
    found = run(folder, "--kind", "zdr", raw=raw)
    assert found.output.splitlines()[-1] == (
        f"NOT VERIFIED: it is the gateway's word alone, and not shown: {HOLDS}; {WHOSE}."
    )


@pytest.mark.parametrize("raw", [b"", b"junk", b"{}", b"[1"])
def test_what_cannot_be_read_ends_with_2(folder: Path, raw: bytes):
    assert run(folder, raw=raw).exit_code == 2


def test_what_is_no_receipt_yet_or_has_no_evidence_is_told_in_one_line(folder: Path):
    pending = {"receipt_id": "a", "request_id": "b", "label": "pending"}
    bare = {**json.loads(export()), "evidence": {}}
    for raw, told in (
        (json.dumps({"receipt": pending, "evidence": {}, "log": None}).encode(), "is pending"),
        (json.dumps(bare).encode(), "this export has no evidence"),
    ):
        found = run(folder, raw=raw)
        assert (found.exit_code, found.output.count("\n")) == (2, 1)
        assert told in found.output


@pytest.mark.parametrize("arguments", [
    ["--now", "nan"], ["--now", "inf"], ["--gateway-key", "abc"], ["--gateway-key", "zz" * 32],
    ["--roots", "/nowhere/roots.json"], ["--kind", "other"], ["--gateway-key", ""],
    ["--policy", "mine"], ["--allowed-tcb", ""], ["--allowed-tcb", "UpToDate,Revoked"],
])  # fmt: skip
def test_what_cannot_be_meant_ends_with_2(folder: Path, arguments: list[str]):
    assert run(folder, *arguments).exit_code == 2


def test_a_file_that_is_not_there_or_holds_other_roots_ends_with_2(folder: Path):
    for other in (b"{]", b"{}", b'{"error": {}}'):
        (folder / "roots.json").write_bytes(other)
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
