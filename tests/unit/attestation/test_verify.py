"""The whole of it on recorded traffic: from the bytes of a chat to the hardware that answered."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from shared.attestation.evidence import Evidence
from shared.attestation.factor import Factor
from shared.attestation.policy import Policy
from shared.attestation.roots import PRODUCTION, Roots
from shared.attestation.session import examine
from shared.attestation.verdict import Verdict
from shared.attestation.verify import conclude, verify
from shared.transcript import Digest, Transcript
from tests.transcripts import a_transcript
from tests.unit.attestation.gpu_mint import Maker
from tests.vectors import vector

DEFAULT = Policy()
NOW = 1_781_056_027.0
REPORTED_AT = NOW - 10
MODEL = "Qwen/Qwen3.5-122B-A10B"


def text(name: str) -> str:
    return vector(name).decode()


def digest(name: str) -> Digest:
    body = vector(name)
    return Digest(hashlib.sha256(body).hexdigest(), len(body))


def recorded(**changes: Any) -> tuple[Transcript, Evidence]:
    """A chat and a report that share their signer, from two sources."""
    chat, report = "near-chat-stream-ecdsa", "near-model-ecdsa-addr"
    call = a_transcript(
        upstream_model=MODEL, streamed=True, started_at=NOW, ended_at=NOW + 5,
        forwarded_request=digest(f"{chat}/request.json"),
        upstream_response=digest(f"{chat}/response.sse"),
    )  # fmt: skip
    collateral = text(f"{report}/collateral_90C06F000000.json")
    evidence = Evidence(
        nonce=json.loads(text(f"{report}/meta.json"))["nonce"],
        report=text(f"{report}/attestation_report.json"),
        reported_at=REPORTED_AT,
        collateral={f"90C06F000000/{ca}": collateral for ca in ("platform", "processor")},
        nras=text(f"{report}/nras_response.json"),
        nras_keys=text(f"{report}/nras_jwks_used_keys.json"),
        signature=text(f"{chat}/signature.json"),
    )
    return call, replace(evidence, **changes)


DEFAULT = Policy()


def verdict_of(
    call: Transcript,
    evidence: Evidence,
    *,
    policy: Policy = DEFAULT,
    roots: Roots = PRODUCTION,
    now: float = NOW,
    is_over: bool = True,
) -> Verdict:
    return verify(call, evidence, policy=policy, roots=roots, now=now, is_over=is_over)


def test_recorded_traffic_is_verified_from_the_chats_bytes_to_the_hardware():
    verdict = verdict_of(*recorded())
    assert (verdict.label, verdict.reason, verdict.detail) == ("verified", "", "")
    by_name = {one.name: one.status for one in verdict.factors}
    skipped = [name for name, status in by_name.items() if status == "skip"]
    assert skipped == ["tls_pinned", "gateway_attested"]


@pytest.mark.parametrize(("missing", "open_one"), [
    ("signature", "request_hash"), ("report", "tls_pinned"), ("nras", "gpu_measurements"),
    ("nras_keys", "gpu_measurements"),
])  # fmt: skip
def test_what_was_not_obtained_is_pending_and_then_unavailable(missing: str, open_one: str):
    call, evidence = recorded(**{missing: ""})
    verdict = verdict_of(call, evidence, is_over=False)
    assert (verdict.label, verdict.detail) == ("pending", open_one)
    verdict = verdict_of(call, evidence)
    assert (verdict.label, verdict.reason) == ("failed", "evidence_unavailable")


def test_without_collateral_it_is_pending():
    call, evidence = recorded(collateral={})
    assert verdict_of(call, evidence, is_over=False).label == "pending"


def test_nvidias_word_may_be_demoted_to_information():
    call, evidence = recorded(nras="")
    assert verdict_of(call, evidence, policy=Policy(demoted=("gpu_measurements",))).label == (
        "verified"
    )


@pytest.mark.parametrize(("changes", "factor"), [
    ({"forwarded_request": Digest("1" * 64, 1)}, "request_hash"),
    ({"upstream_response": Digest("1" * 64, 1)}, "response_hash"),
    ({"upstream_model": "Qwen/Qwen3.6"}, "signature_model"),
    ({"started_at": REPORTED_AT + 301}, "report_nonce"),
])  # fmt: skip
def test_another_call_is_not_the_one_that_was_signed(changes: Mapping[str, Any], factor: str):
    call, evidence = recorded()
    verdict = verdict_of(replace(call, **changes), evidence)
    assert (verdict.label, verdict.reason, verdict.detail) == ("failed", "evidence_invalid", factor)


def test_another_nonce_fails_wherever_it_is_looked_for():
    call, evidence = recorded(nonce="77" * 32)
    failing = {one.name for one in verdict_of(call, evidence).factors if one.status == "fail"}
    assert failing == {"report_nonce", "gpu_nonce", "gpu_measurements"}


def test_at_another_time_or_under_other_roots_it_fails():
    call, evidence = recorded()
    assert verdict_of(call, evidence, now=NOW + 7200).detail == "gpu_measurements"
    assert verdict_of(call, evidence, roots=Maker().roots).detail == "gpu_genuine"


def test_a_cut_answer_is_never_verified_whatever_is_signed():
    call, evidence = recorded()
    verdict = verdict_of(replace(call, complete=False, cause="client_disconnected"), evidence)
    assert (verdict.label, verdict.reason) == ("failed", "evidence_unavailable")
    assert verdict.detail == "client_disconnected"


def test_a_session_is_good_for_calls_that_begin_while_its_report_is_fresh():
    call, evidence = recorded()
    session = examine(
        evidence, signer="6525e128afcffebf7eed05d485d7be983cdae934", upstream_model=MODEL,
        policy=Policy(), roots=PRODUCTION, now=NOW,
    )  # fmt: skip

    def label(started_at: float) -> str:
        later = replace(call, started_at=started_at)
        verdict = conclude(later, evidence.signature, session, policy=Policy(), is_over=True)
        return verdict.label

    assert label(REPORTED_AT + 300) == "verified"
    assert label(REPORTED_AT + 301) == "failed"


def test_a_factor_that_somebody_else_found_is_told_beside_the_others():
    call, evidence = recorded()
    history = [Factor("signer_history", "fail", "policy", "another compose than last time")]
    verdict = verify(call, evidence, policy=Policy(), roots=PRODUCTION, now=NOW, is_over=True,
                     history=history)  # fmt: skip
    assert (verdict.label, verdict.detail) == ("failed", "signer_history")


@pytest.mark.parametrize("junk", ["junk", "{}", "[]", "[" * 100_000, '{"text": "::"}', "\ud800"])
@pytest.mark.parametrize("name", ["signature", "report", "nras", "nras_keys", "nonce"])
def test_junk_of_any_kind_is_never_verified_and_never_raises(name: str, junk: str):
    call, evidence = recorded(**{name: junk})
    assert verdict_of(call, evidence).label == "failed"
