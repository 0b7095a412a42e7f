import hashlib
import json
import math
from typing import Any

import msgspec
import pytest

from shared.attestation.signing import (
    ReceiptKey,
    canonical,
    key_id_of,
    verify_document,
    verify_head,
    verify_signature,
)

KEY, OTHER = ReceiptKey(b"\x02" * 32), ReceiptKey(b"\x03" * 32)
DOCUMENT = {
    "format": "ollm-receipt/1",
    "started_at": 1781056027.25,
    "factors": [],
    "detail": "é ☺ \0",
}


def test_a_signature_is_that_of_the_published_vector():
    """ACI's test vectors §4 (Dstack-TEE/private-ai-gateway, Apache-2.0)."""
    receipt = json.loads(
        '{"api_version":"aci/1","chat_id":"chatcmpl-123","endpoint":"/v1/chat/completions",'
        '"event_log":[{"body_hash":"sha256:94d809bf47380d8a2eab0eb6e126d4dda9364b0b4725cdf7ead52dd'
        '70b2aa87b","type":"request.received"},{"body_hash":"sha256:94d809bf47380d8a2eab0eb6e126d4'
        'dda9364b0b4725cdf7ead52dd70b2aa87b","type":"request.forwarded"},{"model_id":"demo-model",'
        '"required":true,"result":"verified","session_id":"95ad1cb4dd25445808c2e9d116caf420b05703'
        '730b506395e8fc1ca6faeae28f","type":"upstream.verified"},{"body_hash":"sha256:dedfffe5b14d'
        '031b8e2c01996d021a15293cb7c63b56be7e4be9e89b6f0a5f61","type":"response.returned"}],'
        '"key_id":"receipt-1","method":"POST","model":"demo-model","receipt_id":"rcpt-0001",'
        '"served_at":1750000000,"workload_keyset_digest":"sha256:53a5cd44b30dcc51999754c719f2628a'
        '041f174ecbf9662a6f8e898a10cd9371"}'
    )
    assert hashlib.sha256(canonical(receipt)).hexdigest().startswith("1bd328e6880a5a12")
    assert KEY.sign(receipt) == (
        "d5b005e093bde3b577faf270b7184b09e169cacb0ecb206b103bd2581f997db0"
        "3da616175454b063323a23ac1dc68f1ce506c2a6eba8aa0561d5e724f0b80c03"
    )
    assert KEY.public_key.hex().startswith("8139770ea87d175f")


def test_a_key_is_named_by_its_public_key():
    assert KEY.key_id == hashlib.sha256(KEY.public_key).hexdigest()[:16]
    assert KEY.key_id != OTHER.key_id
    for wrong in (b"", b"x" * 31, b"x" * 33):
        with pytest.raises(ValueError, match="32 bytes"):
            ReceiptKey(wrong)


def test_a_signed_document_is_canonical_and_verifies_after_a_round_trip():
    signed = KEY.sign_document(DOCUMENT)
    read = json.loads(signed)
    assert canonical(read) == signed
    assert verify_document(read, KEY.public_key)
    assert read["gateway_signature"]["key_id"] == KEY.key_id
    assert {name: read[name] for name in DOCUMENT} == DOCUMENT
    assert KEY.sign_document(DOCUMENT) == signed


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(detail="other"),
        lambda d: d.update(more=1),
        lambda d: d.pop("factors"),
        lambda d: d.pop("gateway_signature"),
        lambda d: d.update(gateway_signature=None),
        lambda d: d.update(gateway_signature=[]),
        lambda d: d["gateway_signature"].pop("value"),
        lambda d: d["gateway_signature"].update(value=7),
        lambda d: d["gateway_signature"].update(value="zz"),
        lambda d: d["gateway_signature"].update(alg="none"),
        lambda d: d["gateway_signature"].update(key_id=OTHER.key_id),
        lambda d: d["gateway_signature"].update(public_key=OTHER.public_key.hex()),
        lambda d: d["gateway_signature"].update(more=""),
        lambda d: d.update(detail=math.nan),
        lambda d: d.update(detail="\ud800"),
    ],
)
def test_a_document_that_was_changed_does_not_verify(change):
    document = json.loads(KEY.sign_document(DOCUMENT))
    change(document)
    assert not verify_document(document, KEY.public_key)


def test_a_document_of_another_key_does_not_verify():
    document = json.loads(OTHER.sign_document(DOCUMENT))
    assert verify_document(document, OTHER.public_key)
    assert not verify_document(document, KEY.public_key)
    stranger: list[Any] = [None, [], "x", 1, {}]
    for strange in stranger:
        assert not verify_document(strange, KEY.public_key)
    for public_key in (b"", b"x" * 31):
        assert not verify_document(document, public_key)


def test_what_has_no_canonical_form_is_refused_by_whoever_signs_and_by_whoever_checks():
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    stranger: list[Any] = [math.nan, math.inf, 2**53 + 1, "\ud800", {1: 2}, b"x", deep]
    for strange in stranger:
        with pytest.raises(ValueError, match="no canonical JSON"):
            KEY.sign({"x": strange})
        assert not verify_signature({"x": strange}, "00" * 64, KEY.public_key)


def test_a_head_is_signed_over_its_three_members_in_one_layout():
    head = KEY.sign_head(3, b"\xab" * 32, 1781056027.25)
    layout = b'{"root_hash":"%b","timestamp":1781056027250,"tree_size":3}' % (b"ab" * 32)
    assert (
        canonical({"tree_size": 3, "root_hash": head.root_hash, "timestamp": head.timestamp})
        == layout
    )
    assert verify_signature(json.loads(layout), head.signature, KEY.public_key)
    assert verify_head(head, KEY.public_key)
    assert not verify_head(head, OTHER.public_key)
    for change in (
        {"tree_size": 4},
        {"tree_size": -1},
        {"root_hash": "cd" * 32},
        {"timestamp": 1},
        {"key_id": OTHER.key_id},
        {"signature": ""},
        {"signature": OTHER.sign_head(3, b"\xab" * 32, 1781056027.25).signature},
    ):
        assert not verify_head(msgspec.structs.replace(head, **change), KEY.public_key)


def test_a_head_cannot_be_taken_for_a_receipt():
    head = KEY.sign_head(3, b"\xab" * 32, 1.0)
    stamp = {"alg": "ed25519", "key_id": KEY.key_id, "public_key": KEY.public_key.hex()}
    told = {"tree_size": 3, "root_hash": head.root_hash, "timestamp": head.timestamp}
    stamped = {**told, "gateway_signature": {**stamp, "value": head.signature}}
    assert not verify_document(stamped, KEY.public_key)
    assert key_id_of(KEY.public_key) == KEY.key_id
