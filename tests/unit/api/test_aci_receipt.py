"""A receipt in ACI's form passes the checks that we make of ACI receipts of others."""

import json
from typing import Any

import pytest

from api.aci_receipt import aci_receipt
from shared.attestation.message import check_message
from shared.attestation.policy import Policy
from shared.attestation.session import Session
from shared.attestation.signing import ReceiptKey
from shared.transcript import Digest
from tests.transcripts import a_transcript

KEY = ReceiptKey(b"\x05" * 32)
SENT, GOT = "1" * 64, "4" * 64
# Whoever calls this gateway: what it sent us and what it got from us are its own two hashes.
CLIENT = a_transcript(
    upstream_model="near_m", upstream_receipt_id="r",
    forwarded_request=Digest(SENT, 1), upstream_response=Digest(GOT, 1),
)  # fmt: skip
SESSION = Session(
    factors=(),
    shape="aci-c",
    scope="gateway",
    receipt_keys={KEY.key_id: ("ed25519", KEY.public_key.hex())},
)


def document(**changes: Any) -> dict[str, Any]:
    hashes = {
        "client_request": SENT, "forwarded_request": "2" * 64, "upstream_response": "3" * 64,
        "client_response": GOT,
    }  # fmt: skip
    return {
        "receipt_id": "01a1fee2-a859-7008-bd05-bc78b121f955",
        "request_id": "01a1fee2-a859-7008-bd05-bc78b121f956",
        "model": "near_m",
        "endpoint": "chat.completions",
        "ended_at": 1781056027.75,
        "hashes": {name: {"sha256": one, "size": 1} for name, one in hashes.items()},
        **changes,
    }


def statuses(receipt: dict[str, Any]) -> dict[str, str]:
    return {
        one.name: one.status
        for one in check_message(CLIENT, json.dumps(receipt), SESSION, policy=Policy())
    }


def test_it_holds_for_the_client_whose_bytes_it_names():
    found = statuses(aci_receipt(document(), KEY))
    assert set(found) >= {"request_hash", "response_hash", "signature_valid", "signature_model"}
    assert not {name for name in found if found[name] == "fail"}
    assert found["signature_valid"] == "pass"
    assert (found["request_hash"], found["response_hash"]) == ("pass", "pass")


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"model": "other"}, "signature_model"),
        ({"served_at": 1}, "signature_valid"),
        ({"key_id": "other"}, "signature_valid"),
        ({"event_log": []}, "request_hash"),
    ],
)
def test_it_does_not_hold_once_it_was_changed(change, factor):
    assert statuses({**aci_receipt(document(), KEY), **change})[factor] == "fail"


def test_it_is_the_same_whenever_it_is_asked_for():
    assert aci_receipt(document(), KEY) == aci_receipt(document(), KEY)
    assert aci_receipt(document(endpoint="embeddings"), KEY)["endpoint"] == "/v1/embeddings"
