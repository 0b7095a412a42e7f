"""Reports: every provider's form is read as one, and no text of any form makes the reader fall over."""

import json
from typing import Any

import pytest

from shared.attestation.report import MAX_ATTESTATIONS, Attestation, Report, read_report
from tests.unit.attestation.minted import (
    GATEWAY_SIGNER,
    MODEL,
    RECEIPT_KEY,
    SIGNER,
    SPKI,
    Machine,
    aci,
    chutes,
    gpu_payload,
    keyset,
    near_direct,
    near_gateway,
    tinfoil,
    vllm_proxy,
)
from tests.vectors import vector


def read(document: object) -> Report:
    found = read_report(document if isinstance(document, str) else json.dumps(document))
    assert found
    return found


def first(document: object) -> Attestation:
    return read(document).attestations[0]


@pytest.mark.parametrize(
    ("document", "shape", "scope"),
    [
        (near_gateway(), "near-gateway", "gateway"),
        (near_direct(), "near-direct", "model"),
        (vllm_proxy(), "vllm-proxy", "model"),
        (aci("b"), "aci-b", "gateway"),
        (aci("c"), "aci-c", "gateway"),
        (chutes(), "chutes", "model"),
        (tinfoil(), "tinfoil", "model"),
    ],
)
def test_a_shape_is_told_by_its_members(document: object, shape: str, scope: str):
    found = read(document)
    assert (found.shape, found.scope) == (shape, scope)
    assert len(first(document).quote) > 4000


def test_a_recorded_report_is_read_through_its_resellers_wrapping():
    found = read(vector("near-model-ecdsa-addr/attestation_report.json").decode())
    assert found.shape == "near-direct"
    one = found.attestations[0]
    assert (one.signer, one.algorithm) == ("6525e128afcffebf7eed05d485d7be983cdae934", "ecdsa")
    assert (one.model, one.image) == ("Qwen/Qwen3.5-122B-A10B", "dstack-nvidia-0.5.5")
    assert (len(one.quote), len(one.event_log or ())) == (5010, 30)
    assert one.app_compose.startswith("{\n")


def test_a_gateways_report_has_both_kinds_of_machines():
    found = read(near_gateway(Machine(), Machine(signer="44" * 20)))
    assert [one.signer for one in found.attestations] == [SIGNER, "44" * 20]
    assert [one.model for one in found.attestations] == [MODEL, MODEL]
    assert found.gateway
    assert (found.gateway.signer, found.gateway.algorithm) == (GATEWAY_SIGNER, "ed25519")
    assert found.gateway.event_log == first(near_gateway()).event_log


@pytest.mark.parametrize("gateway", [None, "", [], 7, {}])
def test_a_gateway_report_may_lack_its_gateway(gateway: object):
    assert read({**near_gateway(), "gateway_attestation": gateway}).gateway is None


def test_every_node_behind_a_proxy_is_read():
    found = read(vllm_proxy(Machine(), Machine(signer="44" * 20)))
    assert [one.signer for one in found.attestations] == [SIGNER, SIGNER, "44" * 20]


def test_not_more_nodes_are_read_than_there_can_be():
    bare = Machine(shown={"nvidia_payload": None, "event_log": None, "intel_quote": "00"})
    many = vllm_proxy(bare, bare)
    many["all_attestations"] *= MAX_ATTESTATIONS
    assert len(read(many).attestations) == MAX_ATTESTATIONS


@pytest.mark.parametrize(
    ("members", "name", "value"),
    [
        ({"signing_address": "0x" + SIGNER.upper()}, "signer", SIGNER),
        ({"signing_address": SIGNER}, "signer", SIGNER),
        ({"signing_address": "0xnothing"}, "signer", ""),
        ({"signing_address": 7}, "signer", ""),
        ({"signing_algo": "ECDSA"}, "algorithm", "ecdsa"),
        ({"intel_quote": "0x0aFF"}, "quote", b"\x0a\xff"),
        ({"intel_quote": "BAACAIEAAAA="}, "quote", b"\4\0\2\0\x81\0\0\0"),
        ({"intel_quote": None, "quote": "0a"}, "quote", b"\x0a"),
        ({"intel_quote": "no quote"}, "quote", b""),
        ({"intel_quote": "00" * 70_000}, "quote", b""),
        ({"event_log": "[1, 2]"}, "event_log", (1, 2)),
        ({"event_log": []}, "event_log", None),
        ({"event_log": "no log"}, "event_log", None),
        ({"event_log": None, "info": {"tcb_info": {"event_log": [3]}}}, "event_log", (3,)),
        ({"info": {"tcb_info": '{"app_compose": "a"}'}}, "app_compose", "a"),
        ({"info": '{"tcb_info": {"app_compose": "a"}}'}, "app_compose", "a"),
        ({"info": {}, "app_compose": "b"}, "app_compose", "b"),
        ({"nvidia_payload": {"nonce": "a"}}, "nvidia_payload", '{"nonce":"a"}'),
        ({"nvidia_payload": None}, "nvidia_payload", ""),
        ({"vm_config": '{"image": "dstack-dev-0.5"}'}, "image", "dstack-dev-0.5"),
        ({"vm_config": {"image": "a"}}, "image", "a"),
        ({"info": {"vm_config": {"image": "b"}}}, "image", "b"),
        ({"tls_cert_fingerprint": "0x" + SPKI.upper()}, "tls_spki", SPKI),
    ],
)
def test_one_thing_in_several_forms_is_read_as_one(members: Any, name: str, value: object):
    document = {k: v for k, v in {**near_direct(), **members}.items() if v is not None}
    assert getattr(first(document), name) == value


def test_an_aci_report_has_its_keyset_and_what_is_in_it():
    keys = keyset(tls=(("api.example.com", SPKI),))
    one = first(aci("b", workload_keyset=keys))
    assert one.keyset == keys
    assert one.receipt_keys == {"receipt-1": ("ed25519", RECEIPT_KEY["public_key"])}
    assert one.tls_keys == {"api.example.com": SPKI}
    assert one.workload_id.startswith("sha256:")
    assert one.signer == ""
    assert one.event_log


def test_the_classic_form_of_an_aci_report_names_a_signer_too():
    one = first({**aci("c"), "signing_address": "0x" + SIGNER, "signing_algo": "ecdsa"})
    assert (one.signer, one.algorithm) == (SIGNER, "ecdsa")
    assert one.receipt_keys


def test_chutes_names_its_own_nonce_and_key():
    document = chutes()
    one = first(document)
    assert (one.server_nonce, one.encryption_key) == (document["nonce"], "an encryption key")
    assert json.loads(one.nvidia_payload)["nonce"] == document["nonce"]
    del document["all_attestations"][0]["nonce"]
    assert first(document).server_nonce == document["nonce"]


UNKNOWN = [
    "", " ", "null", "1", '"text"', "[]", "{}", "[{}]", "{", '{"a"', "\ud800", "\x00", "NaN",
    '{"error": {"message": "no such model"}}', '{"api_version": "aci/2"}',
    '{"attestation_type": "other"}', '{"all_attestations": []}', '"' + "x" * 100 + '"',
]  # fmt: skip


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_has_no_known_shape_is_no_report(text: str):
    assert read_report(text) is None


def test_a_text_beyond_all_measure_is_no_report():
    room = 1024 * 1024 - len(json.dumps(near_direct(padding="")))
    assert read_report(json.dumps(near_direct(padding="x" * room))) is not None
    assert read_report(json.dumps(near_direct(padding="x" * (room + 1)))) is None


def test_a_gateways_report_of_two_machines_with_eight_gpus_each_is_read():
    eight = {"nvidia_payload": gpu_payload(count=8)}
    report = near_gateway(Machine(shown=eight), Machine(shown=eight))
    read = read_report(json.dumps(report))
    assert read is not None
    assert len(read.attestations) == 2


def test_long_texts_are_read_or_left_in_good_time():
    long = "f" * 900_000
    for name in ("signing_address", "intel_quote", "event_log", "info", "tls_cert_fingerprint"):
        one = first({**near_direct(), name: long})
        assert one.quote == b"" or name != "intel_quote"


@pytest.mark.parametrize("depth", [900, 5_000, 100_000])
def test_deep_nesting_makes_nothing_fall_over(depth: int):
    deep = "[" * depth + "]" * depth
    for text in (
        deep,
        '{"signing_address": ' + deep + "}",
        '{"api_version":"aci/1","x":' + deep + "}",
    ):
        found = read_report(text)
        assert found is None or found.attestations[0].quote == b""


JUNK: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], [None], {}, {"a": 1}, [[]], "[]", "{}"]
MEMBERS = (
    "signing_address", "signing_algo", "intel_quote", "quote", "event_log", "nvidia_payload", "info",
    "vm_config", "tls_cert_fingerprint", "all_attestations", "model_name", "nonce", "e2e_pubkey",
    "gpu_evidence", "attestation", "workload_id", "model_attestations", "gateway_attestation",
    "attestation_type", "api_version",
)  # fmt: skip


@pytest.mark.parametrize("shape", [near_direct, near_gateway, vllm_proxy, chutes, tinfoil])
def test_members_of_the_wrong_type_are_left_empty(shape: Any):
    document = shape()
    for name in MEMBERS:
        for junk in JUNK:
            found = read_report(json.dumps({**document, name: junk}))
            assert found is None or all(isinstance(one, Attestation) for one in found.all)


@pytest.mark.parametrize("generation", ["b", "c"])
def test_members_of_an_aci_report_of_the_wrong_type_are_left_empty(generation: str):
    names = ("workload_keyset", "evidence", "receipt_signing_keys", "tls_public_keys", "quote")
    for name in names:
        for junk in JUNK:
            document = aci(generation)
            inner = document["attestation"]
            for holder in (inner, inner["evidence"], inner["workload_keyset"]):
                if name in holder:
                    holder[name] = junk
            assert read(document).shape == f"aci-{generation}"
