"""An auditor with a file and roots of its own comes to the receipt's verdict, or says where not."""

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shared.attestation.audit import Audit, audit
from shared.attestation.evidence import Evidence
from shared.attestation.export import NotAReceipt
from shared.attestation.factor import DECIDING, Factor
from shared.attestation.policy import Policy
from shared.attestation.receipt import digest_of, evidence_texts
from shared.attestation.roots import PRODUCTION, Roots
from shared.attestation.session import examine
from shared.attestation.signing import ReceiptKey
from shared.attestation.terms import Terms
from shared.attestation.verdict import Verdict, judge
from shared.transcript import Digest
from tests.exports import (
    KEY,
    Json,
    document_of,
    export_of,
    log_of,
    signed,
    verdict_of,
)
from tests.minted import NOW, Minted
from tests.minted import minted as mint

DEFAULT, NO_GPU = Policy(), Policy(has_gpu=False)
HEX_KEY = KEY.public_key.hex()
OTHER_KEY = ReceiptKey(b"\x06" * 32)


@cache
def minted(profile: str = "phala", *, model: str = "sim/chat", streamed: bool = False) -> Minted:
    """One of each, for the tokens differ each time they are made. By default with a single GPU."""
    return mint(profile, model=model, streamed=streamed)


def honest(call: Minted, policy: Policy = DEFAULT, **changes: Any) -> Json:
    """The signed document of a call as it is."""
    return signed(document_of(call, verdict_of(call, policy), policy, **changes))


def exported(call: Minted, policy: Policy = DEFAULT, **changes: Any) -> bytes:
    document = honest(call, policy, **changes)
    return export_of(document, evidence_texts(call.evidence), log=log_of(document))


def audited(
    export: bytes,
    *,
    roots: Roots | None = None,
    now: float | None = None,
    key: str | None = HEX_KEY,
    **terms: Any,
) -> Audit:
    """`key`: those that are known, with commas. `terms`: more of them."""
    keys = frozenset(key.split(",")) if key else frozenset[str]()
    asked = Terms(gateway_keys=keys, **terms)
    return audit(export, roots=roots or minted().roots, now=now, terms=asked)


def wrong(found: Audit) -> list[str]:
    return [check.name for check in found.checks if check.status == "fail"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("profile", ["near-direct", "phala"])
def test_an_honest_receipt_comes_out_verified(profile: str, streamed: bool):
    found = audited(exported(minted(profile, streamed=streamed)))
    assert [check.status for check in found.checks] == ["pass"] * 7
    assert found.verdict.label == "verified"
    assert found.holds()
    assert found.not_shown == ()


def test_the_answer_that_a_proxy_writes_otherwise_is_known_from_the_file():
    found = audited(exported(minted("phala", model="tee-reserialised")))
    assert found.holds()
    # What was signed is a dump that the gateway hashed: that it is this answer is its word.
    assert (found.request_link, found.response_link) == ("bytes", "word")


@pytest.mark.parametrize(
    "times",
    [
        {"verified_at": 1.0},
        {"verified_at": NOW + 301},
        {"ended_at": 5.0, "started_at": 4.0},
    ],
)
def test_times_that_do_not_follow_one_another_are_found(times: dict[str, Any]):
    assert "times" in wrong(audited(exported(minted(), **times)))


@pytest.mark.parametrize(("profile", "policy"), [("near", Policy()), ("aci-b", NO_GPU),
                                                 ("aci-c", NO_GPU)])  # fmt: skip
def test_what_a_gateway_signed_comes_out_so_and_is_not_verified(profile: str, policy: Policy):
    found = audited(exported(minted(profile, streamed=True), policy), accept_policy=True)
    assert found.verdict.label == "gateway_only"
    assert wrong(found) == []
    assert not found.holds()


@pytest.mark.parametrize("model", ["tee-out-of-date", "tee-debug", "tee-wrong-response",
                                   "tee-nras-false", "tee-nras-away"])  # fmt: skip
def test_a_failed_receipt_comes_out_failed_for_the_same_reason(model: str):
    found = audited(exported(minted(model=model)))
    assert (found.verdict.label, wrong(found)) == ("failed", [])
    assert found.verdict.detail == found.stored.detail
    assert not found.holds()


def test_nothing_is_proven_by_demoting_all_that_decides():
    call, policy = minted(), Policy(demoted=DECIDING)
    bare = Minted(transcript=call.transcript, evidence=Evidence(), roots=PRODUCTION)
    assert verdict_of(bare, policy).label == "failed"
    lie = signed(document_of(bare, Verdict("verified"), policy))
    with pytest.raises(NotAReceipt, match="demotes a factor that always decides"):
        audited(export_of(lie, {}), roots=PRODUCTION)


def test_an_answer_that_was_cut_comes_out_with_its_cause():
    call = minted()
    cut = Minted(
        transcript=replace(call.transcript, complete=False, cause="client_disconnected"),
        evidence=Evidence(), roots=call.roots,
    )  # fmt: skip
    verdict = judge((), gateway_scope=False, complete=False, cause="client_disconnected",
                    is_over=True)  # fmt: skip
    found = audited(export_of(signed(document_of(cut, verdict)), {}))
    assert (found.verdict.label, found.verdict.detail) == ("failed", "client_disconnected")
    assert wrong(found) == []


# ---- trust


def test_the_auditors_roots_count_and_not_those_of_the_file():
    found = audited(exported(minted()), roots=PRODUCTION)
    assert (found.verdict.label, found.verdict.detail) == ("failed", "quote_valid")
    assert wrong(found) == ["factors", "label"]
    assert found.synthetic


def test_synthetic_roots_are_told_loudly():
    found = audited(exported(minted()))
    assert found.synthetic
    assert any("SYNTHETIC" in note for note in found.notes)


def test_it_is_judged_at_the_time_it_was_verified_and_at_another_only_if_asked():
    export = exported(minted())
    assert audited(export).verified_at == NOW
    late = audited(export, now=NOW + 31 * 86_400)
    assert "collateral_current" in [
        one.name for one in late.verdict.factors if one.status == "fail"
    ]
    assert not late.holds()


def test_a_gateway_key_that_was_not_given_is_told_and_another_than_the_given_fails():
    export = exported(minted())
    assert audited(export, key=None).holds()
    assert audited(export, key=None).not_shown == (
        "that the gateway's log holds it", "whose key signed it"
    )  # fmt: skip
    assert wrong(audited(export, key=OTHER_KEY.public_key.hex())) == ["gateway_signature", "log"]
    assert audited(export, key=f"{OTHER_KEY.public_key.hex()},{HEX_KEY}").holds()


def test_a_log_head_under_another_key_of_the_gateway_is_fine():
    call = minted()
    document = honest(call)
    export = export_of(document, evidence_texts(call.evidence), log=log_of(document, key=OTHER_KEY))
    assert audited(export, key=f"{HEX_KEY},{OTHER_KEY.public_key.hex()}").holds()
    assert wrong(audited(export)) == ["log"]


@pytest.mark.parametrize("policy", [
    Policy(allowed_tcb=("UpToDate", "OutOfDate")), Policy(demoted=("gpu_measurements",)), NO_GPU,
    Policy(report_seconds=3600),
])  # fmt: skip
def test_a_policy_that_is_laxer_than_the_default_is_told_and_must_be_accepted(policy: Policy):
    export = exported(minted(), policy)
    found, accepted = audited(export), audited(export, accept_policy=True)
    assert (found.verdict.label, wrong(found), found.holds()) == ("verified", ["policy"], False)
    assert (accepted.laxer, accepted.holds()) == (found.laxer, True)
    assert len(found.laxer) == 1


@pytest.mark.parametrize("policy", [
    DEFAULT, Policy(allowed_tcb=()), Policy(report_seconds=60),
    Policy(compose_hashes=("ab" * 32,), os_images=("cd" * 32,)),
])  # fmt: skip
def test_a_policy_that_is_stricter_than_the_default_needs_nobodys_consent(policy: Policy):
    found = audited(exported(minted(), policy))
    assert (found.laxer, wrong(found)) == ((), [])


def test_a_tcb_status_that_the_policy_allows_comes_out_so():
    policy = Policy(allowed_tcb=("UpToDate", "OutOfDate"))
    export = exported(minted(model="tee-out-of-date"), policy)
    assert audited(export, accept_policy=True).holds()
    assert audited(export, allowed_tcb=("UpToDate", "OutOfDate")).holds()


LAX: list[tuple[str, Policy, dict[str, Any], str]] = [
    ("tee-out-of-date", Policy(allowed_tcb=("UpToDate", "OutOfDate")),
     {"allowed_tcb": ("UpToDate",)}, "tcb_status"),
    ("tee-out-of-date", Policy(allowed_tcb=("UpToDate", "OutOfDate")),
     {"default_policy": True}, "tcb_status"),
    ("tee-nras-away", Policy(demoted=("gpu_measurements",)),
     {"no_demoted": True}, "gpu_measurements"),
    ("tee-nras-away", Policy(demoted=("gpu_measurements",)),
     {"default_policy": True}, "gpu_measurements"),
    ("tee-missing-gpu", NO_GPU, {"default_policy": True}, "gpu_present"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "policy", "terms", "factor"), LAX)
def test_an_auditors_own_policy_decides_in_place_of_the_receipts(
    model: str, policy: Policy, terms: dict[str, Any], factor: str
):
    export = exported(minted(model=model), policy)
    assert audited(export, accept_policy=True).holds()
    found = audited(export, **terms)
    assert (found.verdict.label, found.verdict.detail) == ("failed", factor)
    # True to its own policy it still is: the receipt does not lie.
    assert (found.laxer, wrong(found), found.holds()) == ((), [], False)
    assert (found.stored.label, found.stored_policy) == ("verified", policy)


def test_what_an_auditor_has_not_chosen_stays_the_gateways():
    policy = Policy(allowed_tcb=("UpToDate", "OutOfDate"), demoted=("gpu_measurements",))
    found = audited(exported(minted(), policy), no_demoted=True)
    assert (found.laxer, wrong(found)) == (("TCB OutOfDate",), ["policy"])


def test_lists_of_what_is_known_stay_in_the_default_policy():
    policy = Policy(compose_hashes=("ab" * 32,))
    found = audited(exported(minted(), policy), default_policy=True)
    assert found.policy == policy


# ---- links to the client's bytes


def test_it_says_whether_the_clients_bytes_are_the_signed_ones():
    call = minted()
    found = audited(exported(call))
    assert (found.request_link, found.response_link) == ("bytes", "bytes")
    other = Digest("1" * 64, 5)
    changed = replace(call.transcript, client_request=other, client_response=Digest())
    found = audited(exported(Minted(transcript=changed, evidence=call.evidence, roots=call.roots)))
    assert (found.request_link, found.response_link) == ("word", "open")
    assert found.holds()


# ---- a file that was changed


@cache
def an_export() -> bytes:
    return exported(minted())


def changed_export(change: Callable[[Json], None]) -> bytes:
    whole = json.loads(an_export())
    change(whole)
    return json.dumps(whole).encode()


@pytest.mark.parametrize("name", [
    "receipt_id", "request_id", "provider", "model", "upstream_model", "upstream_id", "endpoint",
    "tier", "stream", "started_at", "ended_at", "verified_at", "detail", "complete",
    "cause", "nonce", "reported_at", "session_id", "reserialised_response", "more",
])  # fmt: skip
def test_no_member_of_the_document_can_be_another(name: str):
    def change(whole: Json) -> None:
        told = whole["receipt"].get(name)
        if isinstance(told, bool):
            whole["receipt"][name] = not told
        elif isinstance(told, int):
            whole["receipt"][name] = told + 1
        else:
            whole["receipt"][name] = f"{told}x"

    found = audited(changed_export(change))
    assert {"gateway_signature", "log"} <= set(wrong(found))
    assert not found.holds()


@pytest.mark.parametrize("member", ["hashes", "policy", "evidence", "tls", "roots", "software"])
def test_no_object_of_the_document_can_be_another(member: str):
    def change(whole: Json) -> None:
        whole["receipt"][member]["more"] = 1

    assert {"gateway_signature", "log"} <= set(wrong(audited(changed_export(change))))


@pytest.mark.parametrize("name", ["alg", "key_id", "public_key", "value"])
def test_no_member_of_the_signature_can_be_another(name: str):
    def change(whole: Json) -> None:
        told = whole["receipt"]["gateway_signature"][name]
        whole["receipt"]["gateway_signature"][name] = ("0" if told[0] != "0" else "1") + told[1:]

    assert "gateway_signature" in wrong(audited(changed_export(change)))


@pytest.mark.parametrize("stamp", [None, "junk", {}, {"public_key": 7}, {"public_key": "zz"},
                                   {"public_key": ""}])  # fmt: skip
def test_a_document_that_nobody_signed_fails(stamp: Any):
    def change(whole: Json) -> None:
        whole["receipt"]["gateway_signature"] = stamp

    for key in (HEX_KEY, None):
        assert "gateway_signature" in wrong(audited(changed_export(change), key=key))


def test_an_evidence_text_that_was_changed_is_not_used():
    for name in json.loads(an_export())["evidence"]:

        def change(whole: Json, name: str = name) -> None:
            whole["evidence"][name] += " "

        found = audited(changed_export(change))
        assert "evidence" in wrong(found)
        assert found.verdict.label == "failed"


def test_an_evidence_text_that_is_missing_fails():
    def change(whole: Json) -> None:
        del whole["evidence"][whole["receipt"]["evidence"]["report"]]

    found = audited(changed_export(change))
    assert wrong(found) == ["evidence", "factors", "label"]


def test_an_export_without_its_evidence_is_said_to_be_one():
    def change(whole: Json) -> None:
        whole["evidence"] = {}

    with pytest.raises(NotAReceipt, match="has no evidence"):
        audited(changed_export(change))


def test_a_text_that_nobody_named_changes_nothing():
    def change(whole: Json) -> None:
        whole["evidence"][digest_of("more")] = "more"

    assert audited(changed_export(change)).holds()


@pytest.mark.parametrize(("name", "value"), [
    ("leaf_index", 2), ("leaf_index", -1), ("leaf_hash", "00" * 32), ("inclusion_proof", []),
    ("inclusion_proof", ["zz"]), ("public_key", "00" * 32), ("public_key", "zz"),
])  # fmt: skip
def test_a_proof_that_does_not_lead_to_a_signed_head_fails(name: str, value: Any):
    def change(whole: Json) -> None:
        whole["log"][name] = value

    for key in (HEX_KEY, None):
        assert wrong(audited(changed_export(change), key=key)) == ["log"]


def test_the_proof_of_another_receipt_fails():
    call = minted()
    document, other = honest(call), honest(call, session_id="other")
    export = export_of(document, evidence_texts(call.evidence), log=log_of(other))
    assert wrong(audited(export)) == ["log"]


def test_a_receipt_that_is_not_in_the_log_yet_is_told():
    call = minted()
    found = audited(export_of(honest(call), evidence_texts(call.evidence)))
    assert [check.status for check in found.checks if check.name == "log"] == ["skip"]
    assert found.not_shown == ("that the gateway's log holds it",)
    assert found.holds()


def test_a_log_that_is_asked_for_must_hold_it():
    call = minted()
    export = export_of(honest(call), evidence_texts(call.evidence))
    assert wrong(audited(export, require_log=True)) == ["log"]
    assert audited(exported(call), require_log=True).holds()


# ---- a gateway that lies


@pytest.mark.parametrize("model", ["tee-debug", "tee-wrong-signature", "tee-nras-away"])
def test_a_label_that_its_evidence_does_not_bear_is_found(model: str):
    call, good = minted(model=model), verdict_of(minted())
    document = signed(document_of(call, good))
    found = audited(export_of(document, evidence_texts(call.evidence), log=log_of(document)))
    assert wrong(found) == ["factors", "label"]
    assert not found.holds()


def test_one_factor_that_comes_out_otherwise_is_named():
    call, verdict = minted(model="tee-debug"), verdict_of(minted(model="tee-debug"))
    factors = tuple(replace(one, status="pass") if one.name == "not_debug" else one
                    for one in verdict.factors)  # fmt: skip
    document = signed(document_of(call, msgspec.structs.replace(verdict, factors=factors)))
    [check] = [one for one in audited(export_of(document, evidence_texts(call.evidence))).checks
               if one.name == "factors"]  # fmt: skip
    assert check.status == "fail"
    assert "not_debug (pass, here fail)" in check.detail


def test_a_factor_that_is_left_out_counts_as_open():
    call, verdict = minted(), verdict_of(minted())
    fewer = replace(verdict, factors=verdict.factors[1:])
    document = signed(document_of(call, fewer))
    assert wrong(audited(export_of(document, evidence_texts(call.evidence)))) == ["factors"]


@pytest.mark.parametrize(("status", "label"), [("pass", "verified"), ("fail", "failed")])
def test_what_only_the_gateway_can_know_is_taken_as_its_word(status: Any, label: str):
    call = minted()
    verdict = verdict_of(call, history=[Factor("signer_history", status, "policy", "as told")])
    document = signed(document_of(call, verdict))
    found = audited(export_of(document, evidence_texts(call.evidence)))
    assert (found.verdict.label, wrong(found)) == (label, [])


# ---- other kinds


def test_a_policy_record_is_a_contract_and_no_proof():
    call = Minted(transcript=minted().transcript, evidence=Evidence(), roots=PRODUCTION)
    document = signed(document_of(call, Verdict("n/a"), kind="zdr", tier="ZDR",
                                  zdr={"note": "contract, not proof"}))  # fmt: skip
    export = export_of(document, {}, log=log_of(document))
    found = audited(export, roots=PRODUCTION)
    assert (found.verdict.label, wrong(found)) == ("n/a", [])
    assert any("not proof" in note for note in found.notes)
    assert not found.holds()
    assert found.holds("zdr")
    assert not found.holds("refusal")


@pytest.mark.parametrize("kind", ["zdr", "refusal"])
def test_what_rests_on_the_gateways_word_needs_its_key_and_its_log(kind: Any):
    zdr = Minted(transcript=minted().transcript, evidence=Evidence(), roots=PRODUCTION)
    texts = evidence_texts(minted(model="tee-debug").evidence) if kind == "refusal" else {}
    made = {
        "zdr": lambda key: signed(document_of(zdr, Verdict("n/a"), kind="zdr"), key),
        "refusal": lambda key: signed(refused("tee-debug"), key),
    }[kind]
    document, forged = made(KEY), made(OTHER_KEY)
    logged = export_of(document, texts, log=log_of(document))
    assert audited(logged).holds(kind)
    assert not audited(logged, key=None).holds(kind)
    assert not audited(export_of(document, texts)).holds(kind)
    self_made = export_of(forged, texts, log=log_of(forged, key=OTHER_KEY))
    assert not audited(self_made, key=None).holds(kind)
    assert not audited(self_made).holds(kind)


def test_a_receipt_without_factors_has_the_label_that_its_evidence_bears():
    for model, holds in (("sim/chat", True), ("tee-debug", False)):
        call = minted(model=model)
        document = signed(document_of(call, Verdict("verified")))
        found = audited(export_of(document, evidence_texts(call.evidence)))
        assert found.holds() is holds


def test_a_policy_record_cannot_say_that_it_is_verified():
    document = signed(document_of(minted(), verdict_of(minted()), kind="zdr"))
    found = audited(export_of(document, evidence_texts(minted().evidence)))
    assert "label" in wrong(found)
    assert not found.holds("zdr")


def refused(model: str) -> Json:
    call = minted(model=model)
    evidence = replace(call.evidence, signature="")
    session = examine(
        evidence, signer="", upstream_model=model, policy=Policy(), roots=call.roots, now=NOW
    )
    verdict = judge(session.factors, gateway_scope=False, is_over=True)
    without = Minted(transcript=call.transcript, evidence=evidence, roots=call.roots)
    return signed(document_of(without, verdict, kind="refusal", complete=False))


def test_a_refusal_shows_the_session_that_was_refused():
    document = refused("tee-debug")
    texts = evidence_texts(minted(model="tee-debug").evidence)
    found = audited(export_of(document, texts, log=log_of(document)))
    assert (found.verdict.label, found.verdict.reason) == ("failed", "evidence_invalid")
    assert wrong(found) == []
    assert not found.holds()
    assert found.holds("refusal")


def test_a_refusal_of_what_was_in_order_is_found():
    document = {**refused("tee-debug"), "evidence": honest(minted())["evidence"]}
    found = audited(export_of(signed(document), evidence_texts(minted().evidence)))
    assert "factors" in wrong(found)
    assert not found.holds("refusal")


def test_a_pending_receipt_is_nothing_yet():
    told = {"receipt_id": "a", "request_id": "b", "label": "pending"}
    with pytest.raises(NotAReceipt, match="is pending: ask for it again"):
        audited(json.dumps({"receipt": told, "evidence": {}, "log": None}).encode())


# ---- what is no receipt


@pytest.mark.parametrize("raw", [
    b"", b"junk", b"[]", b"7", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"receipt": {}}',
    b'{"receipt": null, "evidence": {}, "log": null}', b'{"receipt": NaN}',
    b'{"receipt": {"label": "verified", "receipt_id": "a", "request_id": "b"}}',
    b'{"receipt": {"label": "pending", "receipt_id": 7, "request_id": "b"}}',
    b'{"a": 1, "a": 2}', b'{"receipt": 1e999}', b'{"a": "\\ud800"}', b'{"a": 9007199254740993}',
])  # fmt: skip
def test_what_is_no_receipt_is_said_to_be_none(raw: bytes):
    with pytest.raises(NotAReceipt):
        audited(raw)


def test_an_error_that_was_saved_as_a_receipt_is_told_in_its_own_words():
    raw = b'{"error": {"message": "Receipt \'x\' not found.", "code": "receipt_not_found"}}'
    with pytest.raises(NotAReceipt, match=r"an error .* receipt: Receipt 'x' not found."):
        audited(raw)
    with pytest.raises(NotAReceipt, match=r"an error .* receipt$"):
        audited(b'{"error": {"message": 7}}')
    with pytest.raises(NotAReceipt, match="not the export"):
        audited(b'{"error": "no object"}')


def test_two_members_of_one_name_are_not_read():
    raw = an_export().replace(b'"label":', b'"label": "failed", "label":', 1)
    with pytest.raises(NotAReceipt, match="twice"):
        audited(raw)


@pytest.mark.parametrize(("name", "value"), [
    ("format", "ollm-receipt/2"), ("label", "proven"), ("kind", "other"), ("factors", [{}]),
    ("factors", [{"name": "other", "status": "pass", "source": "computed"}]),
    ("policy", {"allowed_tcb": 7}), ("hashes", []), ("evidence", {"collateral": []}),
])  # fmt: skip
def test_a_document_of_another_form_is_not_read(name: str, value: Any):
    def change(whole: Json) -> None:
        whole["receipt"][name] = value

    with pytest.raises(NotAReceipt):
        audited(changed_export(change))


def test_random_changes_are_always_found_and_raise_nothing_else():
    rng, whole = random.Random(5), an_export()
    head = len(whole) - len(whole.split(b'"evidence": {"sha256', 1)[1])
    for number in range(120):
        # Every other one outside of the large texts.
        at = rng.randrange(len(whole) if number % 2 else head)
        changed = whole[:at] + bytes([rng.randrange(32, 127)]) + whole[at + 1 :]
        try:
            found = audited(changed)
        except NotAReceipt:
            continue
        assert wrong(found) or json.loads(changed) == json.loads(whole)
