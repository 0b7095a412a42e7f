"""Whatever is changed in the evidence of an honest call, the call is not verified, and it is said why.

Every case takes evidence that verifies and changes one thing, or takes that of a machine with one
fault. All of it is minted: nothing here is recorded, nothing is mocked.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest

from shared.attestation.policy import Policy
from shared.attestation.roots import PRODUCTION, Roots
from shared.attestation.verdict import Verdict
from shared.attestation.verify import verify
from shared.transcript import Digest
from tests.minted import NONCE, NOW, REQUEST, STREAM, Minted, digest, minted, tee
from workers.simulator.tee.faults import MESSAGE_FAULTS, SESSION_FAULTS
from workers.simulator.tee.fleet import NEAR_MODEL
from workers.simulator.tee.pki import Pki

Change = Callable[[Minted], Minted]
Json = dict[str, Any]

DAY = 86_400.0
OTHER_NONCE = "ab" * 32
ONE_BIT = "00" * 32
WITHOUT_EVIDENCE = (
    "signature-error", "signature-500", "signature-never",
    "report-stall", "report-500", "report-garbage",
)  # fmt: skip
"""Faults of the services' answers: what there is of evidence is sound."""


def verdict(case: Minted, *, has_gpu: bool = True) -> Verdict:
    return verify(
        case.transcript,
        case.evidence,
        policy=Policy(has_gpu=has_gpu),
        roots=case.roots,
        now=case.now,
        is_over=True,
    )


@cache
def honest(profile: str = "near-direct", *, streamed: bool = False) -> Minted:
    return minted(profile, streamed=streamed, ends_tls=True)


def statuses(found: Verdict) -> dict[str, str]:
    return {factor.name: factor.status for factor in found.factors}


def refuse(case: Minted, factor: str, status: str = "fail") -> None:
    """Not verified, and the factor that shows it is not passed."""
    found = verdict(case)
    shown = statuses(found)
    assert (found.label, shown[factor]) == ("failed", status)
    is_wrong = "fail" in shown.values()
    assert found.reason == ("evidence_invalid" if is_wrong else "evidence_unavailable")


# The honest calls


@pytest.mark.parametrize("ends_tls", [False, True])
@pytest.mark.parametrize("algorithm", ["ecdsa", "ed25519"])
@pytest.mark.parametrize(
    ("profile", "streamed", "label"),
    [
        ("near-direct", False, "verified"),
        ("near-direct", True, "verified"),
        ("near", False, "verified"),
        ("near", True, "gateway_only"),
        ("phala", False, "verified"),
        ("phala", True, "verified"),
    ],
)
def test_an_honest_call_is_verified(
    profile: str, streamed: bool, label: str, algorithm: str, ends_tls: bool
):
    case = minted(profile, streamed=streamed, algorithm=algorithm, ends_tls=ends_tls)
    assert verdict(case).label == label


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("profile", ["aci-b", "aci-c"])
def test_an_honest_receipt_is_a_gateways(profile: str, streamed: bool):
    """Its machine has no GPU, and vouches for others' that have."""
    assert verdict(minted(profile, streamed=streamed), has_gpu=False).label == "gateway_only"
    assert verdict(minted(profile, streamed=streamed)).detail == "gpu_present"


def test_the_dump_that_vllm_proxy_signs_is_known():
    case = minted("phala", model="tee-reserialised")
    found = verdict(case)
    (told,) = (factor.detail for factor in found.factors if factor.name == "response_hash")
    assert (found.label, "reserialised" in told) == ("verified", True)


def test_a_verdict_under_synthetic_roots_says_so():
    (told,) = (f.detail for f in verdict(honest()).factors if f.name == "trust_root")
    assert "SYNTHETIC" in told


@pytest.mark.parametrize("profile", ["chutes", "tinfoil"])
def test_a_resold_node_is_never_verified(profile: str):
    found = verdict(minted(profile))
    shown = statuses(found)
    assert found.label == "failed"
    assert (shown["report_nonce"], shown["signature_valid"]) == ("fail", "unknown")


# Machines and signatures with a fault


@pytest.mark.parametrize("profile", ["near", "near-direct", "phala"])
@pytest.mark.parametrize(
    ("fault", "factor"),
    [(f, n) for f, n in {**SESSION_FAULTS, **MESSAGE_FAULTS}.items() if f not in WITHOUT_EVIDENCE],
)
def test_every_fault_is_found_by_its_factor(profile: str, fault: str, factor: str):
    if fault == "gateway-debug" and profile != "near":
        factor = "not_debug"
    found = verdict(minted(profile, model=f"tee-{fault}", ends_tls=True))
    assert found.label == "failed"
    assert statuses(found)[factor] in ("fail", "unknown")
    assert found.detail


@pytest.mark.parametrize("profile", ["aci-b", "aci-c"])
@pytest.mark.parametrize(
    ("fault", "factor"),
    [
        ("foreign-nonce", "report_nonce"),
        ("stale-report", "report_nonce"),
        ("foreign-root", "quote_valid"),
        ("tampered-quote", "quote_valid"),
        ("out-of-date", "tcb_status"),
        ("debug", "not_debug"),
        ("tampered-event-log", "rtmr_replay"),
        ("no-event-log", "rtmr_replay"),
        ("changed-compose", "compose_hash"),
        ("wrong-signature", "signature_valid"),
        ("signature-garbage", "signature_valid"),
        ("other-signer", "signature_valid"),
        ("other-model", "signature_model"),
        ("wrong-request", "request_hash"),
        ("wrong-response", "response_hash"),
    ],
)
def test_every_fault_of_an_aci_gateway_is_found(profile: str, fault: str, factor: str):
    found = verdict(minted(profile, model=f"tee-{fault}"), has_gpu=False)
    assert found.label == "failed"
    assert statuses(found)[factor] in ("fail", "unknown")


# Changes


def with_report(change: Callable[[Json], object]) -> Change:
    """Changes the report's document in place."""

    def changed(case: Minted) -> Minted:
        document = json.loads(case.evidence.report)
        change(document)
        return with_evidence(case, report=json.dumps(document))

    return changed


def with_evidence(case: Minted, **members: Any) -> Minted:
    return replace(case, evidence=msgspec.structs.replace(case.evidence, **members))


def with_transcript(**members: Any) -> Change:
    def changed(case: Minted) -> Minted:
        return replace(case, transcript=msgspec.structs.replace(case.transcript, **members))

    return changed


def evidence(**members: Any) -> Change:
    return lambda case: with_evidence(case, **members)


def at(seconds: float) -> Change:
    return lambda case: replace(case, now=case.now + seconds)


def under(roots: Roots) -> Change:
    return lambda case: replace(case, roots=roots)


def in_signature(**members: object) -> Change:
    def changed(case: Minted) -> Minted:
        document = json.loads(case.evidence.signature) | members
        return with_evidence(case, signature=json.dumps(document))

    return changed


def signed_text(old: str, new: str) -> Change:
    """The text is changed, and its signature is not."""

    def changed(case: Minted) -> Minted:
        told = json.loads(case.evidence.signature)["text"]
        assert old in told
        return in_signature(text=told.replace(old, new, 1))(case)

    return changed


def flip(place: int, *, member: str = "intel_quote") -> Change:
    """One bit of the quote."""

    def changed(document: Json) -> None:
        quote = bytearray(bytes.fromhex(document[member]))
        quote[place] ^= 1
        document[member] = quote.hex()

    return with_report(changed)


def flip_certificate(number: int) -> Change:
    """One character of the quote's chain, for another of base64."""

    def changed(document: Json) -> None:
        quote = bytearray(bytes.fromhex(document["intel_quote"]))
        begin = b"-----BEGIN CERTIFICATE-----\n"
        places: list[int] = []
        while (found := quote.find(begin, places[-1] + 1 if places else 0)) >= 0:
            places.append(found)
        inside = places[number] + len(begin) + 65 * 4 + 7
        quote[inside] = ord("A") if quote[inside] != ord("A") else ord("B")
        document["intel_quote"] = quote.hex()

    return with_report(changed)


def log(change: Callable[[list[Json]], object]) -> Change:
    """In both places where the log is served."""

    def changed(document: Json) -> None:
        change(document["event_log"])
        change(document["info"]["tcb_info"]["event_log"])

    return with_report(changed)


def event(name: str, **members: object) -> Change:
    def changed(events: list[Json]) -> None:
        (found,) = (one for one in events if one["event"] == name)
        found |= members

    return log(changed)


def gpus(change: Callable[[Json], object]) -> Change:
    def changed(document: Json) -> None:
        payload = json.loads(document["nvidia_payload"])
        change(payload)
        document["nvidia_payload"] = json.dumps(payload)

    return with_report(changed)


def measured(place: int) -> Change:
    """One bit of the first GPU's SPDM bytes."""

    def changed(payload: Json) -> None:
        raw = bytearray(base64.b64decode(payload["evidence_list"][0]["evidence"]))
        raw[place] ^= 1
        payload["evidence_list"][0]["evidence"] = base64.b64encode(raw).decode()

    return gpus(changed)


def certificates(change: Callable[[list[str]], list[str]]) -> Change:
    """The first GPU's chain, leaf first, as texts of PEM."""

    def changed(payload: Json) -> None:
        item = payload["evidence_list"][0]
        end = "-----END CERTIFICATE-----\n"
        chain = base64.b64decode(item["certificate"]).decode().split(end)[:-1]
        told = "".join(change([one + end for one in chain]))
        item["certificate"] = base64.b64encode(told.encode()).decode()

    return gpus(changed)


def swap_certificates(payload: Json) -> None:
    first, second = payload["evidence_list"][:2]
    first["certificate"], second["certificate"] = second["certificate"], first["certificate"]


def nras(change: Callable[[list[Any]], object]) -> Change:
    def changed(case: Minted) -> Minted:
        answer = json.loads(case.evidence.nras)
        change(answer)
        return with_evidence(case, nras=json.dumps(answer))

    return changed


def overall(change: Callable[[str], str]) -> Change:
    def changed(answer: list[Any]) -> None:
        answer[0][1] = change(answer[0][1])

    return nras(changed)


def of_gpu(name: str, change: Callable[[str], str]) -> Change:
    def changed(answer: list[Any]) -> None:
        answer[1][name] = change(answer[1][name])

    return nras(changed)


def claiming(**claims: object) -> Callable[[str], str]:
    """Another payload under the same signature."""

    def changed(token: str) -> str:
        head, body, signature = token.split(".")
        told = {**_opened(body), **claims}
        return ".".join([head, _closed(told), signature])

    return changed


def headed(**members: object) -> Callable[[str], str]:
    def changed(token: str) -> str:
        head, body, signature = token.split(".")
        return ".".join([_closed({**_opened(head), **members}), body, signature])

    return changed


def unsigned(token: str) -> str:
    head, body, _ = token.split(".")
    return ".".join([_closed({**_opened(head), "alg": "none"}), body, ""])


def _opened(part: str) -> Json:
    opened: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return opened


def _closed(document: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def collateral(change: Callable[[Json], object]) -> Change:
    def changed(case: Minted) -> Minted:
        told = {}
        for key, text in case.evidence.collateral.items():
            document = json.loads(text)
            change(document)
            told[key] = json.dumps(document)
        return with_evidence(case, collateral=told)

    return changed


def in_member(name: str, old: str, new: str) -> Callable[[Json], object]:
    def changed(document: Json) -> None:
        assert old in document[name]
        document[name] = document[name].replace(old, new)

    return changed


def setting(name: str, value: object) -> Callable[[Json], object]:
    return lambda document: document.update({name: value})


def spoil(name: str) -> Callable[[Json], object]:
    """One hex digit, far inside."""

    def changed(document: Json) -> None:
        old = document[name]
        digit = "0" if old[60] != "0" else "1"
        document[name] = old[:60] + digit + old[61:]

    return changed


def another_call(case: Minted) -> Minted:
    """A sound signature of the same machine, of another call's bytes."""
    other = minted("near-direct", streamed=True, ends_tls=True)
    return with_evidence(case, signature=other.evidence.signature)


def another_model(case: Minted) -> Minted:
    """Signature and report of the machine of another model, asked with our nonce."""
    other = minted("near-direct", model="tee-honest", ends_tls=True)
    return with_evidence(case, signature=other.evidence.signature)


def another_nodes_signer(case: Minted) -> Minted:
    """Signed by a genuine machine of the same service, which this report does not show."""
    told = json.loads(case.evidence.signature)
    node = tee(ends_tls=True).fleet.nodes(NEAR_MODEL, "other-model")[0]
    signed = {"signature": node.ecdsa.sign(told["text"]), "signing_address": node.ecdsa.address}
    return with_evidence(case, signature=json.dumps(told | signed))


def claimed_by_the_attested(case: Minted) -> Minted:
    """The same, under the attested signer's name."""
    forged = json.loads(another_nodes_signer(case).evidence.signature)
    own = json.loads(case.evidence.signature)["signing_address"]
    return with_evidence(case, signature=json.dumps(forged | {"signing_address": own}))


def claimed_by_the_report(case: Minted) -> Minted:
    """And the report, too, is made to say that it is its signer."""
    forged = another_nodes_signer(case)
    address = json.loads(forged.evidence.signature)["signing_address"]

    def named(document: Json) -> None:
        document["signing_address"] = address

    return with_report(named)(forged)


def old_report(case: Minted) -> Minted:
    """A report that was sound under a nonce of another day."""
    other = minted("near-direct", ends_tls=True, nonce=OTHER_NONCE)
    return with_evidence(case, report=other.evidence.report)


def old_gpus(case: Minted) -> Minted:
    other = json.loads(minted("near-direct", ends_tls=True, nonce=OTHER_NONCE).evidence.report)
    return with_report(setting("nvidia_payload", other["nvidia_payload"]))(case)


def old_nras(case: Minted) -> Minted:
    other = minted("near-direct", ends_tls=True, nonce=OTHER_NONCE)
    return with_evidence(case, nras=other.evidence.nras)


def lend_compose(case: Minted) -> Minted:
    """The compose of another service, with its own hash beside it."""
    other = json.loads(honest("phala").evidence.report)
    lent = json.loads(other["info"]["tcb_info"])

    def changed(document: Json) -> None:
        for name in ("app_compose", "compose_hash"):
            document["info"]["tcb_info"][name] = lent[name]
        document["info"]["compose_hash"] = lent["compose_hash"]

    return with_report(changed)(case)


def drop(name: str) -> Callable[[Json], object]:
    return lambda document: document.pop(name)


def another_address(document: Json) -> None:
    for holder in (document, *document["all_attestations"]):
        holder["signing_address"] = "0x" + "11" * 20


SYNTHETIC = tee(ends_tls=True).pki.roots
OTHER = Pki.mint(NOW)
OWN_GPU_ROOT_ONLY = msgspec.structs.replace(SYNTHETIC, intel_der=OTHER.root.der)
OWN_QUOTE_ROOT_ONLY = msgspec.structs.replace(SYNTHETIC, nvidia_sha256=OTHER.roots.nvidia_sha256)
LOOSE_EVENT = {
    "imr": 3,
    "event_type": 0x08000001,
    "event": "compose-hash",
    "event_payload": "00",
    "digest": "",
}

CASES: dict[str, tuple[str, Change]] = {
    # Quote: header
    "quote version": ("quote_valid", flip(0)),
    "kind of attestation key": ("quote_valid", flip(2)),
    "kind of TEE": ("quote_valid", flip(4)),
    "enclave's security version": ("quote_valid", flip(8)),
    "vendor": ("quote_valid", flip(12)),
    "user data": ("quote_valid", flip(30)),
    # Quote: body
    "module's security version": ("quote_valid", flip(48)),
    "module": ("quote_valid", flip(48 + 16)),
    "module's signer": ("quote_valid", flip(48 + 64)),
    "module's attributes": ("quote_valid", flip(48 + 112)),
    "machine's attributes": ("quote_valid", flip(48 + 122)),
    "debug bit": ("quote_valid", flip(48 + 120)),
    "extended features": ("quote_valid", flip(48 + 128)),
    "firmware": ("quote_valid", flip(48 + 136)),
    "configuration id": ("quote_valid", flip(48 + 184 + 7)),
    "owner": ("quote_valid", flip(48 + 232)),
    "owner's configuration": ("quote_valid", flip(48 + 280)),
    "register 0": ("quote_valid", flip(48 + 328)),
    "register 1": ("quote_valid", flip(48 + 376)),
    "register 2": ("quote_valid", flip(48 + 424)),
    "register 3": ("quote_valid", flip(48 + 472)),
    "signer in the report data": ("quote_valid", flip(48 + 520)),
    "nonce in the report data": ("quote_valid", flip(48 + 583)),
    # Quote: signature and certificates
    "length of the signature": ("quote_valid", flip(632)),
    "signature of the quote": ("quote_valid", flip(636)),
    "attestation key": ("quote_valid", flip(700)),
    "length of the certification": ("quote_valid", flip(766)),
    "enclave's report": ("quote_valid", flip(770 + 64)),
    "key in the enclave's report": ("quote_valid", flip(770 + 320)),
    "signature of the enclave's report": ("quote_valid", flip(770 + 384)),
    "authentication data": ("quote_valid", flip(770 + 384 + 64 + 2)),
    "certificate of the platform": ("quote_valid", flip_certificate(0)),
    "certificate of its authority": ("quote_valid", flip_certificate(1)),
    "cut quote": ("quote_valid", with_report(lambda d: d.update(intel_quote=d["intel_quote"][:4000]))),
    "quote that is none": ("quote_valid", with_report(setting("intel_quote", "00" * 4000))),
    # Report
    "another nonce of ours": ("report_nonce", evidence(nonce=OTHER_NONCE)),
    "report of another day": ("report_nonce", old_report),
    "report long before the call": ("report_nonce", evidence(reported_at=NOW - 400)),
    "signer in the report": ("signer_bound", with_report(another_address)),
    "TLS key in the report": ("signer_bound", with_report(setting("tls_cert_fingerprint", ONE_BIT))),
    "TLS key left out of the report": ("signer_bound", with_report(drop("tls_cert_fingerprint"))),
    # Event log and compose
    "payload of an event": ("rtmr_replay", event("app-id", event_payload="00")),
    "payload and digest of an event": ("rtmr_replay", event("app-id", event_payload="00", digest="")),
    "digest of an event": ("rtmr_replay", event("compose-hash", digest="00" * 48)),
    "name of an event": ("rtmr_replay", event("instance-id", event="instance")),
    "event left out": ("rtmr_replay", log(lambda events: events.pop())),
    "events in another order": ("rtmr_replay", log(lambda events: events.reverse())),
    "event twice": ("rtmr_replay", log(lambda events: events.append(events[-1]))),
    "second compose after the boot": ("rtmr_replay", log(lambda events: events.append(LOOSE_EVENT))),
    "boot event": ("rtmr_replay", log(lambda events: events[0].update(digest="00" * 48))),
    "event of no register": ("rtmr_replay", log(lambda events: events[0].update(imr=9))),
    "empty log": ("rtmr_replay", log(lambda events: events.clear())),
    "compose": ("compose_hash", with_report(lambda d: d["info"]["tcb_info"].update(app_compose="{}"))),
    "compose of another service": ("compose_hash", lend_compose),
    # GPUs
    "nonce of the payload": ("gpu_nonce", gpus(setting("nonce", OTHER_NONCE))),
    "evidence of another day": ("gpu_nonce", old_gpus),
    "code of the request": ("gpu_genuine", measured(1)),
    "nonce of the request": ("gpu_nonce", measured(4)),
    "slot of the request": ("gpu_genuine", measured(36)),
    "response of a GPU": ("gpu_genuine", measured(46)),
    "signature of a GPU": ("gpu_genuine", measured(-1)),
    "no intermediate": ("gpu_genuine", certificates(lambda chain: [chain[0], chain[2]])),
    "no root": ("gpu_genuine", certificates(lambda chain: chain[:2])),
    "certificates the other way round": ("gpu_genuine", certificates(lambda chain: chain[::-1])),
    "certificate of another GPU": ("gpu_genuine", gpus(swap_certificates)),
    "the same GPU eight times": ("gpu_present", gpus(lambda p: p.update(evidence_list=p["evidence_list"][:1] * 8))),
    "no GPU": ("gpu_present", gpus(setting("evidence_list", []))),
    "no payload": ("gpu_present", with_report(drop("nvidia_payload"))),
    "a GPU fewer than NVIDIA names": ("gpu_measurements", gpus(lambda p: p["evidence_list"].pop())),
    # NRAS
    "result under the same signature": ("gpu_measurements", overall(claiming(**{"x-nvidia-overall-att-result": "true"}))),
    "nonce under the same signature": ("gpu_measurements", overall(claiming(eat_nonce=OTHER_NONCE))),
    "tokens of another day": ("gpu_measurements", old_nras),
    "signature of the overall token": ("gpu_measurements", overall(lambda token: token[:-4] + "AAAA")),
    "overall token without signature": ("gpu_measurements", overall(unsigned)),
    "a GPU's token without signature": ("gpu_measurements", of_gpu("GPU-3", unsigned)),
    "another key's name": ("gpu_measurements", overall(headed(kid="another"))),
    "another algorithm's name": ("gpu_measurements", overall(headed(alg="HS256"))),
    "a GPU's result": ("gpu_measurements", of_gpu("GPU-0", claiming(measres="success "))),
    "a token fewer": ("gpu_measurements", nras(lambda answer: answer[1].pop("GPU-7"))),
    "a token more": ("gpu_measurements", nras(lambda answer: answer[1].update({"GPU-8": answer[1]["GPU-0"]}))),
    "tokens swapped": ("gpu_measurements", nras(lambda a: a[1].update({"GPU-0": a[1]["GPU-1"], "GPU-1": a[1]["GPU-0"]}))),
    "tokens an hour later": ("gpu_measurements", at(3601)),
    "tokens before their time": ("gpu_measurements", at(-60)),
    "somebody else's keys": ("gpu_measurements", evidence(nras_keys='{"keys":[]}')),
    "an answer that is none": ("gpu_measurements", evidence(nras="[]")),
    # Message
    "request": ("request_hash", with_transcript(forwarded_request=digest(REQUEST + b" "))),
    "answer": ("response_hash", with_transcript(upstream_response=Digest(ONE_BIT, 1))),
    "request in the text": ("signature_valid", signed_text(digest(REQUEST).sha256, ONE_BIT)),
    "model in the text": ("signature_valid", signed_text("sim/chat", "sim/other")),
    "model that was asked for": ("signature_model", with_transcript(upstream_model="sim/other")),
    "signature": ("signature_valid", in_signature(signature="0x" + "11" * 65)),
    "no signature at all": ("signature_valid", in_signature(signature="")),
    "algorithm of the signature": ("signature_valid", in_signature(signing_algo="ed25519")),
    "kind of the signature": ("signature_scope", in_signature(signature_kind="anything")),
    "signature of another call": ("response_hash", another_call),
    "signature of another model's machine": ("signature_model", another_model),
    "another node's signer": ("signer_bound", another_nodes_signer),
    "another node's signature": ("signature_valid", claimed_by_the_attested),
    "another node's signer in the report too": ("signer_bound", claimed_by_the_report),
    # Connection
    "another peer": ("tls_pinned", with_transcript(tls_spki=ONE_BIT)),
    "no TLS": ("tls_pinned", with_transcript(tls_spki="")),
    # Collateral
    "collateral a month later": ("collateral_current", at(31 * DAY)),
    "collateral before its time": ("collateral_current", at(-DAY)),
    "state of the platform": ("quote_valid", collateral(in_member("tcb_info", "UpToDate", "UpToDats"))),
    "signature of the platform's state": ("quote_valid", collateral(spoil("tcb_info_signature"))),
    "signature of the enclave's identity": ("quote_valid", collateral(spoil("qe_identity_signature"))),
    "revocations of another authority": ("quote_valid", collateral(lambda d: d.update(pck_crl=d["root_ca_crl"]))),
    # Roots
    "roots of production": ("quote_valid", under(PRODUCTION)),
    "other synthetic roots": ("quote_valid", under(OTHER.roots)),
    "another root of quotes": ("quote_valid", under(OWN_GPU_ROOT_ONLY)),
    "another root of GPUs": ("gpu_genuine", under(OWN_QUOTE_ROOT_ONLY)),
}  # fmt: skip
UNKNOWN = {"empty log"}
"""Cases in which something is missing, and nothing is wrong."""


@pytest.mark.parametrize(("factor", "change"), CASES.values(), ids=CASES.keys())
def test_a_changed_thing_is_never_verified_and_is_named(
    request: pytest.FixtureRequest, factor: str, change: Change
):
    name = request.node.callspec.id
    refuse(change(honest()), factor, "unknown" if name in UNKNOWN else "fail")


def test_there_are_enough_of_them():
    assert len(CASES) >= 60


@pytest.mark.parametrize("missing", ["signature", "report", "nras", "nras_keys"])
def test_what_is_missing_is_waited_for_and_then_failed(missing: str):
    case = with_evidence(honest(), **{missing: ""})
    early = verify(
        case.transcript, case.evidence, policy=Policy(), roots=case.roots, now=NOW, is_over=False
    )
    assert early.label == "pending"
    found = verdict(case)
    assert (found.label, found.reason) == ("failed", "evidence_unavailable")


def test_without_collateral_a_quote_is_neither_good_nor_bad():
    refuse(with_evidence(honest(), collateral={}), "quote_valid", "unknown")


@pytest.mark.parametrize("cut", [b"\n\n", b"\n", b"data: [DONE]\n\n"])
def test_a_stream_is_signed_with_the_empty_line_after_its_end(cut: bytes):
    case = honest(streamed=True)
    shorter = digest(STREAM.removesuffix(cut))
    refuse(with_transcript(upstream_response=shorter)(case), "response_hash")


def test_a_stream_that_was_cut_is_never_verified():
    case = with_transcript(complete=False, cause="client_disconnected")(honest(streamed=True))
    found = verdict(case)
    assert (found.label, found.detail) == ("failed", "client_disconnected")


@pytest.mark.parametrize("place", [636, 48 + 520, 48 + 583])
def test_the_gateways_own_quote_is_checked_too(place: int):
    def changed(document: Json) -> None:
        gateway = document["gateway_attestation"]
        quote = bytearray(bytes.fromhex(gateway["intel_quote"]))
        quote[place] ^= 1
        gateway["intel_quote"] = quote.hex()

    refuse(with_report(changed)(honest("near")), "gateway_attested")


def test_a_gateway_without_a_quote_of_its_own_is_not_attested():
    refuse(with_report(drop("gateway_attestation"))(honest("near")), "gateway_attested", "unknown")


def test_a_gateways_signature_is_not_made_a_models_by_saying_so():
    case = in_signature(signature_kind="provider_tee")(honest("near", streamed=True))
    assert verdict(case).label == "gateway_only"


def test_a_platform_behind_passes_where_an_operator_allows_it():
    case = minted(model="tee-out-of-date", ends_tls=True)
    allowed = Policy(allowed_tcb=("UpToDate", "OutOfDate"))
    found = verify(
        case.transcript, case.evidence, policy=allowed, roots=case.roots, now=NOW, is_over=True
    )
    assert found.label == "verified"
    assert verdict(case).detail == "tcb_status"


def test_the_nonce_is_ours_and_not_the_reports_own():
    """The report's copy may say what it likes."""
    case = with_report(setting("request_nonce", OTHER_NONCE))(honest())
    assert json.loads(case.evidence.report)["request_nonce"] != NONCE
    assert verdict(case).label == "verified"
