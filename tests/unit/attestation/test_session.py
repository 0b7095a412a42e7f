"""Sessions: what a report proves, factor by factor, of minted machines."""

import json
from typing import Any

import msgspec
import pytest

from shared.attestation.factor import DECIDING, INFORMING, OF_A_MESSAGE
from shared.attestation.policy import Policy
from shared.attestation.report import Shape
from shared.attestation.roots import PRODUCTION
from shared.attestation.session import Session, collateral_needed
from tests.unit.attestation.minted import (
    DIRECT,
    GATEWAY_SIGNER,
    KEY,
    NONCE,
    NOT_HERE,
    NOW,
    OPEN,
    OTHER_SIGNER,
    PASSING,
    RECEIPT_KEY,
    SIGNER,
    SPKI,
    Machine,
    aci,
    chutes,
    collateral_text,
    details,
    examined,
    gpu_payload,
    keyset,
    near_direct,
    near_gateway,
    nras,
    statuses,
    tinfoil,
    vllm_proxy,
)
from tests.vectors import vector
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.signer import EcdsaSigner

GPUS = ("gpu_present", "gpu_nonce", "gpu_genuine", "gpu_measurements")


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (near_direct(), DIRECT),
        (near_direct(Machine(tls_spki=SPKI)), DIRECT),
        (near_direct(Machine(signer="44" * 32)), DIRECT),
        (near_direct(Machine(signer="44" * 32, tls_spki=SPKI)), DIRECT),
        (vllm_proxy(), DIRECT),
        (near_gateway(), PASSING),
    ],
)
def test_honest_machines_pass_in_every_factor(report: object, expected: dict[str, str]):
    session = examined(report)
    assert statuses(session) == expected
    assert session.synthetic
    assert session.gpus == 2


@pytest.mark.parametrize("generation", ["b", "c"])
def test_an_honest_aci_gateway_passes_and_has_no_gpu(generation: str):
    session = examined(aci(generation))
    open_or_failing = {k for k, v in statuses(session).items() if v not in ("pass", "skip")}
    assert open_or_failing == {*GPUS, *OPEN}
    assert statuses(session)["gpu_present"] == "fail"
    without = examined(aci(generation), policy=Policy(has_gpu=False))
    assert statuses(without) == {**PASSING, **dict.fromkeys(GPUS, "skip")}
    assert without.scope == "gateway"
    assert without.receipt_keys == {"receipt-1": ("ed25519", RECEIPT_KEY["public_key"])}


@pytest.mark.parametrize("report", [chutes(), tinfoil()])
def test_resold_nodes_are_recognised_and_never_pass(report: object):
    session = examined(report)
    told = statuses(session)
    assert told["quote_valid"] == "pass"
    assert (told["report_nonce"], told["signer_bound"]) == ("fail", "fail")
    assert session.signer == ""
    assert "signs no messages" in details(session)["signer_bound"]


@pytest.mark.parametrize("make", [chutes, tinfoil])
def test_a_resold_node_is_not_fresh_even_with_our_nonce_in_its_quote(make: Any):
    held = Machine(report_data=bytes.fromhex(SIGNER).ljust(32, b"\0") + bytes.fromhex(NONCE))
    told = statuses(examined({**make(held), "signing_address": SIGNER}))
    assert (told["report_nonce"], told["signer_bound"]) == ("fail", "fail")


def test_a_resold_nodes_key_is_told_apart_from_anothers():
    assert "holds its encryption key" in details(examined(chutes()))["signer_bound"]
    other = chutes()
    other["all_attestations"][0]["e2e_pubkey"] = "another"
    assert "does not hold" in details(examined(other))["signer_bound"]


def test_every_factor_of_a_session_is_told_once_and_in_order():
    names = [one.name for one in examined(near_direct()).factors]
    expected = [one for one in (*DECIDING, *INFORMING) if one not in (*OF_A_MESSAGE, *NOT_HERE)]
    assert names == expected


def test_without_a_report_everything_is_open():
    for report in ("", "{}", "<html>", '{"error": {"message": "busy"}}'):
        session = examined(report)
        expected = {**dict.fromkeys(PASSING, "unknown"), "trust_root": "pass"}
        assert statuses(session) == expected
        assert session.shape is None


def test_a_gateway_that_attests_no_model_leaves_everything_open():
    report = near_gateway()
    report["model_attestations"] = []
    session = examined(report)
    assert statuses(session) == {**dict.fromkeys(PASSING, "unknown"), "trust_root": "pass"}
    assert session.shape == "near-gateway"


def fails(report: object, **options: Any) -> set[str]:
    return {k for k, v in statuses(examined(report, **options)).items() if v == "fail"}


def opens(report: object, **options: Any) -> set[str]:
    told = statuses(examined(report, **options))
    return {k for k, v in told.items() if v == "unknown"} - set(OPEN)


OTHER_NONCE = Machine(nonce="00" * 32)


@pytest.mark.parametrize(
    ("report", "options", "failing"),
    [
        (near_direct(OTHER_NONCE), {}, {"report_nonce"}),
        (near_direct(), {"reported_at": NOW - 301}, {"report_nonce"}),
        (near_direct(), {"nonce": ""}, {"report_nonce"}),
        (near_direct(Machine(report_data=bytes(32) + bytes.fromhex(NONCE))), {}, {"signer_bound"}),
        (near_direct(Machine(shown={"tls_cert_fingerprint": SPKI})), {}, {"signer_bound"}),
        (near_direct(), {"signer": OTHER_SIGNER}, {"signer_bound"}),
        (near_direct(), {"signer": "no signer"}, {"signer_bound"}),
        (near_direct(Machine(shown={"intel_quote": "00"})), {}, {"quote_valid"}),
        (near_direct(Machine(shown={"intel_quote": None})), {}, {"quote_valid"}),
        (near_direct(), {"roots": Pki.mint(NOW).roots}, {"quote_valid", "gpu_genuine"}),
        (near_direct(), {"roots": PRODUCTION}, {"quote_valid", "gpu_genuine"}),
        (near_direct(), {"now": NOW + 31 * 86400, "began_at": NOW},
         {"collateral_current", "gpu_measurements"}),
        (near_direct(), {"collateral": {KEY: collateral_text("OutOfDate")}}, {"tcb_status"}),
        (near_direct(), {"collateral": {KEY: collateral_text("Revoked")}}, {"tcb_status"}),
        (near_direct(Machine(debug=True)), {}, {"not_debug"}),
        (near_direct(Machine(shown={"event_log": [{}]})), {}, {"rtmr_replay"}),
        (near_direct(Machine(compose="another")), {}, {"compose_hash"}),
        (near_direct(), {"policy": Policy(compose_hashes=("00" * 32,))}, {"compose_known"}),
        (near_direct(), {"policy": Policy(os_images=("00" * 32,))}, {"os_image_known"}),
        (near_direct(Machine(shown={"nvidia_payload": None})), {}, {"gpu_present", "gpu_measurements"}),
        (near_direct(Machine(shown={"nvidia_payload": gpu_payload("00" * 32)})), {}, {"gpu_nonce"}),
        (near_direct(Machine(shown={"nvidia_payload": gpu_payload(count=1)})), {},
         {"gpu_measurements"}),
        (near_gateway(gateway=Machine(signer=GATEWAY_SIGNER, nonce="00" * 32)), {},
         {"gateway_attested"}),
        (near_gateway(gateway=Machine(signer=GATEWAY_SIGNER, debug=True)), {}, {"gateway_attested"}),
        (near_gateway(Machine(debug=True)), {}, {"not_debug"}),
        (aci("c", nonce="00" * 32), {"policy": Policy(has_gpu=False)},
         {"report_nonce", "signer_bound", "gateway_attested"}),
        (aci("c", nonce=None), {"policy": Policy(has_gpu=False)},
         {"report_nonce", "gateway_attested"}),
        (aci("c", workload_keyset={"subject": "a"}), {"policy": Policy(has_gpu=False)},
         {"signer_bound", "gateway_attested"}),
    ],
)  # fmt: skip
def test_each_factor_fails_for_its_own_reason(
    report: object, options: dict[str, Any], failing: set[str]
):
    assert fails(report, **options) == failing


UNTIL_VERIFIED = {"report_nonce", "signer_bound", "quote_valid", "collateral_current", "tcb_status",
                  "not_debug", "rtmr_replay", "compose_hash"}  # fmt: skip


@pytest.mark.parametrize(
    ("report", "options", "open_ones"),
    [
        (near_direct(), {"collateral": {}}, UNTIL_VERIFIED),
        (near_direct(), {"collateral": {"other/platform": collateral_text()}}, UNTIL_VERIFIED),
        (near_direct(), {"nras": ""}, {"gpu_measurements"}),
        (near_direct(), {"nras_keys": ""}, {"gpu_measurements"}),
        (near_direct(), {"reported_at": 0.0}, {"report_nonce"}),
        (near_direct(Machine(shown={"event_log": None})), {}, {"rtmr_replay", "compose_hash"}),
        (near_gateway(gateway=None), {}, {"gateway_attested"}),
        (near_gateway(), {"collateral": {}}, {*UNTIL_VERIFIED, "gateway_attested"}),
    ],
)
def test_what_was_not_obtained_is_open_and_does_not_fail(
    report: object, options: dict[str, Any], open_ones: set[str]
):
    assert opens(report, **options) == open_ones
    assert fails(report, **options) == set()


def test_values_of_a_quote_that_was_refused_count_for_nothing():
    told = statuses(examined(near_direct(), roots=PRODUCTION))
    assert {told[name] for name in UNTIL_VERIFIED - {"quote_valid"}} == {"unknown"}


def test_a_report_ages_until_the_call_begins_and_not_until_it_is_verified():
    told = examined(near_direct(), reported_at=NOW - 1000, began_at=NOW - 900)
    assert statuses(told)["report_nonce"] == "pass"
    assert details(told)["report_nonce"] == "100 s old when the call began"
    assert fails(near_direct(), reported_at=NOW - 1000) == {"report_nonce"}
    fresh = Policy(report_seconds=0.0)
    assert fails(near_direct(), policy=fresh) == {"report_nonce"}
    assert fails(near_direct(), policy=fresh, began_at=NOW - 61) == set()


def test_the_signers_own_machine_is_chosen():
    second = Machine(signer=OTHER_SIGNER, compose="{}", measured_compose="{}")
    session = examined(vllm_proxy(Machine(), second), signer="0x" + OTHER_SIGNER.upper())
    assert statuses(session) == DIRECT
    assert (session.signer, session.compose_hash) == (OTHER_SIGNER, second.compose_hash.hex())


def test_only_the_chosen_machine_answers_for_itself():
    report = vllm_proxy(Machine(), Machine(signer=OTHER_SIGNER, debug=True))
    assert fails(report, signer=SIGNER) == set()
    assert fails(report, signer=OTHER_SIGNER) == {"not_debug"}


def test_an_unattested_signer_is_not_named():
    session = examined(near_direct(), signer=OTHER_SIGNER)
    assert session.signer == SIGNER


def test_what_the_gateways_machine_signed_is_bound_to_the_gateway():
    session = examined(near_gateway(), signer=GATEWAY_SIGNER)
    assert statuses(session) == PASSING
    assert (session.signer, session.algorithm) == (GATEWAY_SIGNER, "ed25519")
    assert (session.scope, session.is_gateway_signer) == ("gateway", True)
    other = near_gateway(gateway=Machine(signer=GATEWAY_SIGNER, report_data=bytes(64)))
    assert fails(other, signer=GATEWAY_SIGNER) == {"signer_bound", "gateway_attested"}


def test_a_models_machine_is_told_from_its_gateways():
    session = examined(near_gateway(), signer=SIGNER)
    assert statuses(session) == PASSING
    assert not session.is_gateway_signer


def test_a_tls_key_is_attested_by_the_machine_where_the_connection_ends():
    assert examined(near_direct(Machine(tls_spki=SPKI))).tls_spki == SPKI
    assert examined(near_direct()).tls_spki == ""
    gateway = Machine(signer=GATEWAY_SIGNER, tls_spki="d8" * 32)
    assert examined(near_gateway(Machine(tls_spki=SPKI), gateway=gateway)).tls_spki == "d8" * 32
    assert examined(near_gateway(Machine(tls_spki=SPKI))).tls_spki == ""
    unbound = Machine(shown={"tls_cert_fingerprint": SPKI})
    assert examined(near_direct(unbound)).tls_spki == ""


def test_tls_keys_of_a_keyset_are_attested_by_domain():
    one = examined(aci("c", workload_keyset=keyset(tls=(("a.example", SPKI),))))
    assert (one.tls_spki, one.tls_keys) == (SPKI, {"a.example": SPKI})
    several = keyset(tls=(("a.example", SPKI), ("b.example", "d8" * 32)))
    two = examined(aci("c", workload_keyset=several))
    assert (two.tls_spki, two.tls_keys["b.example"]) == ("", "d8" * 32)


def test_keys_of_a_keyset_that_the_quote_does_not_hold_are_not_named():
    report = aci("c")
    report["attestation"]["workload_keyset"]["receipt_signing_keys"][0]["public_key"] = "cd" * 32
    session = examined(report, policy=Policy(has_gpu=False))
    assert (session.receipt_keys, session.tls_keys, session.tls_spki) == ({}, {}, "")
    assert statuses(session)["signer_bound"] == "fail"


WALLET = EcdsaSigner(b"\7" * 32)


@pytest.mark.parametrize("public_key", [WALLET.public_key, WALLET.public_key[2:]])
def test_a_receipt_key_may_sign_classic_messages(public_key: str):
    key = {"key_id": "1", "algo": "ecdsa-secp256k1", "public_key": public_key}
    report = aci("b", workload_keyset=keyset(key))
    session = examined(report, signer=WALLET.address, policy=Policy(has_gpu=False))
    assert statuses(session)["signer_bound"] == "pass"
    assert (session.signer, session.algorithm) == (WALLET.address[2:], "ecdsa")


def classic(report_data: bytes, keys: dict[str, Any]) -> dict[str, Any]:
    """An ACI gateway's report in the classic form: a signer beside the keyset."""
    report = aci("b", Machine(report_data=report_data), workload_keyset=keys)
    return {**report, "signing_address": "0x" + SIGNER, "signing_algo": "ecdsa"}


def test_a_classic_report_binds_its_signer_or_its_keyset_and_not_the_other():
    """The encryption key is in the address form, the receipt key only in a keyset beside it."""
    key = {"key_id": "1", "algo": "ecdsa-secp256k1", "public_key": WALLET.public_key}
    alias = classic(bytes.fromhex(SIGNER).ljust(32, b"\0") + bytes.fromhex(NONCE), keyset(key))
    policy = Policy(has_gpu=False)
    assert statuses(examined(alias, signer=SIGNER, policy=policy))["signer_bound"] == "pass"
    theirs = examined(alias, signer=WALLET.address, policy=policy)
    assert statuses(theirs)["signer_bound"] == "fail"
    assert theirs.receipt_keys == {}
    native = {**aci("b", workload_keyset=keyset(key)), "signing_address": SIGNER}
    assert (
        statuses(examined(native, signer=WALLET.address, policy=policy))["signer_bound"] == "pass"
    )
    assert statuses(examined(native, signer=SIGNER, policy=policy))["signer_bound"] == "fail"
    assert examined(native, policy=policy).signer == ""


def test_without_gpus_by_the_catalog_gpu_factors_are_skipped():
    told = statuses(examined(near_direct(), policy=Policy(has_gpu=False)))
    assert told == {**DIRECT, **dict.fromkeys(GPUS, "skip")}
    nothing = statuses(examined("", policy=Policy(has_gpu=False)))
    assert {nothing[name] for name in GPUS} == {"skip"}


def test_synthetic_roots_are_said_loudly():
    assert details(examined(near_direct()))["trust_root"].startswith("SYNTHETIC: ")


def test_collateral_is_asked_for_the_chosen_machine_and_its_gateway_alone():
    assert collateral_needed(json.dumps(near_gateway())) == (KEY,)
    other = Machine(shown={"intel_quote": vector("dcap-qvl/tdx_quote").hex()})
    mixed = json.dumps(near_gateway(Machine(), other))
    assert collateral_needed(mixed, SIGNER) == (KEY,)
    behind_another = json.dumps(near_gateway(Machine(), gateway=other))
    assert collateral_needed(behind_another, SIGNER) == (KEY, "B0C06F000000/platform")
    sgx = Machine(shown={"intel_quote": vector("dcap-qvl/sgx_quote").hex()})
    assert collateral_needed(json.dumps(near_direct(sgx))) == ()
    assert collateral_needed("no report") == ()


def test_a_session_can_be_kept_and_read_again():
    for session in (examined(near_gateway()), examined(aci("b")), examined("")):
        kept = msgspec.json.encode(session)
        assert msgspec.json.decode(kept, type=Session) == session


@pytest.mark.parametrize("name", ["nonce", "nras", "nras_keys"])
@pytest.mark.parametrize("junk", ["", "é", "\ud800", "[" * 5000, "0" * 64, "{}", "null", "0x"])
def test_no_other_evidence_of_any_form_makes_it_fall_over(name: str, junk: str):
    assert len(examined(near_direct(), **{name: junk}).factors) == len(PASSING)


def test_the_model_that_was_called_is_looked_for():
    other = {"model_name": "maker/other", **Machine(signer=OTHER_SIGNER).document()}
    report = near_gateway()
    report["model_attestations"].insert(0, other)
    assert examined(report).signer == SIGNER
    assert examined(report, upstream_model="maker/none").signer == OTHER_SIGNER


def test_evidence_of_gpus_is_nvidias_word_about_the_same_payload():
    answer, keys = nras(gpu_payload(count=1))
    assert fails(near_direct(), nras=answer, nras_keys=keys) == {"gpu_measurements"}


@pytest.mark.parametrize(
    ("report", "shapes", "status"),
    [
        (near_direct(), (), "skip"),
        (near_direct(), ("near-direct",), "skip"),
        (near_direct(), ("near-gateway", "vllm-proxy"), "fail"),
        (vllm_proxy(), ("near-direct",), "fail"),
        (near_gateway(), ("near-gateway",), "pass"),
        (near_gateway(), ("near-direct",), "fail"),
        (chutes(), (), "fail"),
        (tinfoil(), (), "fail"),
    ],
)
def test_a_report_of_another_shape_than_the_expected_fails_and_is_named(
    report: object, shapes: tuple[Shape, ...], status: str
):
    session = examined(report, policy=Policy(shapes=shapes))
    assert statuses(session)["gateway_attested"] == status
    if status == "fail":
        assert f"the shape {session.shape} is not accepted" in details(session)["gateway_attested"]


def test_a_gateway_that_shows_its_machine_as_a_models_is_told_by_its_shape():
    gateway = Machine(signer="44" * 20)
    honest = examined(near_gateway(gateway=gateway), signer=gateway.signer)
    assert honest.is_gateway_signer
    flattened = vllm_proxy(gateway)
    assert fails(flattened, signer=gateway.signer) == set()
    expected = Policy(shapes=("near-gateway",))
    assert fails(flattened, signer=gateway.signer, policy=expected) == {"gateway_attested"}
    assert fails(near_gateway(gateway=gateway), signer=gateway.signer, policy=expected) == set()
