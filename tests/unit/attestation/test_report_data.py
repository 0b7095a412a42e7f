"""Report data: each provider's form of it, by published values and by its parts."""

import hashlib
import json
import re
from typing import Any

import pytest

from shared.attestation import quote as quotes
from shared.attestation.report import Attestation
from shared.attestation.report_data import (
    aci_form,
    address_form,
    chutes_form,
    keyset_digest,
    read_binding,
    tls_form,
)
from tests.vectors import vector

NONCE = bytes(range(32)).hex()
ADDRESS, KEY, SPKI = "6525e128afcffebf7eed05d485d7be983cdae934", "ab" * 32, "c0" * 32
KEYSET = {"receipt_signing_keys": [{"key_id": "1"}]}


def published() -> str:
    return vector("aci-spec/test-vectors.md").decode()


def test_a_keyset_has_the_published_digest():
    served = re.search(r"^\{\"e2ee_public_keys.*\}$", published(), re.MULTILINE)
    told = re.search(r"^workload_keyset_digest = (\S+)$", published(), re.MULTILINE)
    assert served
    assert told
    assert keyset_digest(json.loads(served[0])) == told[1]


def test_a_statement_with_and_without_a_nonce_has_the_published_digest():
    digest = re.search(r"^workload_keyset_digest = (\S+)$", published(), re.MULTILINE)
    told = re.findall(
        r"^report_data = (?:sha256\(statement\) = )?(\S+)$", published(), re.MULTILINE
    )
    assert digest
    assert [aci_form(digest[1], one).hex() for one in (NONCE, None)] == [
        one + "00" * 32 for one in told
    ]


def test_a_recorded_quote_holds_the_signers_address_and_our_nonce():
    report = json.loads(vector("near-model-ecdsa-addr/attestation_report.json"))
    nonce = json.loads(vector("near-model-ecdsa-addr/meta.json"))["nonce"]
    quote = quotes.parse(bytes.fromhex(report["intel_quote"]))
    assert quote
    binding = read_binding(quote.report_data, Attestation(signer=ADDRESS), nonce)
    assert (binding.identity, binding.nonce, binding.tls) == ("signer", True, False)


def test_a_recorded_deployment_log_is_bound_by_a_quote_of_its_own():
    report = json.loads(vector("near-model-ecdsa-addr/attestation_report.json"))
    manager = report["compose_manager_attestation"]
    quote = quotes.parse(bytes.fromhex(manager["quote"]))
    assert quote
    assert quote.report_data.hex() == manager["actions_hash"] + report["request_nonce"]


def bound(data: bytes, nonce: str = NONCE, **attested: object) -> tuple[str, bool, bool]:
    found = read_binding(data, Attestation(**attested), nonce)  # type: ignore[arg-type]
    return found.identity, found.nonce, found.tls


@pytest.mark.parametrize("signer", [ADDRESS, KEY])
def test_the_address_form_is_padded_on_the_right(signer: str):
    data = bytes.fromhex(signer).ljust(32, b"\0") + bytes.fromhex(NONCE)
    assert bound(data, signer=signer) == ("signer", True, False)


@pytest.mark.parametrize("signer", [ADDRESS, KEY])
def test_the_tls_form_binds_both_keys(signer: str):
    data = tls_form(bytes.fromhex(signer), bytes.fromhex(SPKI)) + bytes.fromhex(NONCE)
    assert bound(data, signer=signer, tls_spki=SPKI) == ("signer", True, True)
    assert bound(data, signer=signer, tls_spki="c1" * 32) == ("", True, False)
    assert bound(data, signer=signer) == ("", True, False)


@pytest.mark.parametrize("spki", ["c0" * 20, "c0" * 31, "c0" * 33])
def test_a_tls_key_is_named_by_32_bytes(spki: str):
    raw = bytes.fromhex(ADDRESS) + bytes.fromhex(spki)
    data = hashlib.sha256(raw).digest() + bytes.fromhex(NONCE)
    assert bound(data, signer=ADDRESS, tls_spki=spki) == ("", True, False)


def test_a_tls_key_beside_the_address_form_is_not_attested():
    data = address_form(bytes.fromhex(ADDRESS)) + bytes.fromhex(NONCE)
    assert bound(data, signer=ADDRESS, tls_spki=SPKI) == ("", True, False)


@pytest.mark.parametrize("signer", ["", "00", "11" * 19, "11" * 21, "11" * 33, "11" * 64])
def test_only_an_address_or_a_key_is_a_signer(signer: str):
    assert bound(bytes(32) + bytes.fromhex(NONCE), signer=signer)[0] == ""
    assert bound(bytes(32) + bytes.fromhex(NONCE), signer=signer, tls_spki=SPKI)[0] == ""


def test_the_nonce_is_compared_with_ours_alone():
    data = address_form(bytes.fromhex(ADDRESS)) + bytes(32)
    assert bound(data, signer=ADDRESS) == ("signer", False, False)
    assert bound(data, nonce="", signer=ADDRESS) == ("signer", False, False)
    assert bound(data, server_nonce="00" * 32, signer=ADDRESS) == ("signer", False, False)


@pytest.mark.parametrize("workload_id", ["", "sha256:" + "ef" * 32])
def test_a_keyset_is_bound_with_our_nonce(workload_id: str):
    digest = keyset_digest(KEYSET)
    theirs: dict[str, Any] = {"keyset": KEYSET, "workload_id": workload_id}
    assert bound(aci_form(digest, NONCE, workload_id), **theirs) == ("keyset", True, True)
    assert bound(aci_form(digest, None, workload_id), **theirs) == ("keyset", False, True)
    assert bound(aci_form(digest, "00" * 32, workload_id), **theirs) == ("", False, False)
    changed = {**theirs, "keyset": {**KEYSET, "more": 1}}
    assert bound(aci_form(digest, NONCE, workload_id), **changed) == ("", False, False)


def test_without_a_nonce_of_ours_nothing_is_fresh():
    digest = keyset_digest(KEYSET)
    assert bound(aci_form(digest, ""), nonce="", keyset=KEYSET) == ("keyset", False, True)


def test_the_generations_are_not_taken_for_each_other():
    data = aci_form(keyset_digest(KEYSET), NONCE)
    assert bound(data, keyset=KEYSET, workload_id="sha256:ef") == ("", False, False)


@pytest.mark.parametrize("data", [b"", bytes(32), bytes(63), bytes(65)])
def test_report_data_of_another_length_binds_nothing(data: bytes):
    assert bound(data, signer=ADDRESS) == ("", False, False)


def nested(depth: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize("keyset", [None, {}, {"a": 1 << 60}, {"a": float("nan")}, nested(5000)])
def test_what_has_no_canonical_form_has_no_digest(keyset: dict[str, object] | None):
    assert keyset_digest(keyset) == ""


def test_chutes_hashes_texts_and_not_what_they_encode():
    assert chutes_form("0f", "key") == hashlib.sha256(b"0fkey").digest()
