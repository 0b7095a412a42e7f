"""An ACI receipt counts when a key of the attested keyset signed its canonical form."""

import hashlib
import json
import re
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_keys.datatypes import PrivateKey
from msgspec.structs import replace

from shared.attestation.message import check_message, is_gateway_scope
from shared.attestation.policy import Policy
from shared.attestation.report_data import keyset_digest
from shared.attestation.session import Session
from shared.transcript import Digest, Transcript
from tests.transcripts import a_transcript
from tests.vectors import vector

REQUEST, RESPONSE = "1" * 64, "2" * 64
ED_KEY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
KEY = PrivateKey(b"\x07" * 32)
POINT = KEY.public_key.to_bytes()
CALL = a_transcript(
    forwarded_request=Digest(REQUEST, 10), upstream_response=Digest(RESPONSE, 20),
    upstream_receipt_id="rcpt-1",
)  # fmt: skip
SESSION = Session(
    factors=(), shape="aci-c", scope="gateway",
    receipt_keys={
        "ed": ("ed25519", ED_KEY.public_key().public_bytes_raw().hex()),
        "k1": ("ecdsa-secp256k1", KEY.public_key.to_compressed_bytes().hex()),
        "unknown": ("rsa", "00"),
    },
)  # fmt: skip
NAMES = ("request_hash", "response_hash", "signature_valid", "signature_model", "signature_scope")


def events(**changes: Any) -> list[dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {
        "request.received": {"body_hash": f"sha256:{REQUEST}"},
        "request.forwarded": {"body_hash": "sha256:" + "9" * 64},
        "upstream.verified": {"result": "verified", "provider": "x"},
        "response.returned": {"body_hash": f"sha256:{RESPONSE}"},
    }
    merged = {name.replace("_", "."): value for name, value in changes.items()}
    return [{"type": kind, **one} for kind, one in {**told, **merged}.items() if one is not None]


def document(log: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "api_version": "aci/1", "receipt_id": "rcpt-1", "model": "org/model",
        "event_log": events() if log is None else log, "served_at": 1_790_000_000, **changes,
    }  # fmt: skip


def sealed_c(receipt: dict[str, Any], key_id: str = "ed") -> str:
    signed = {**receipt, "key_id": key_id}
    return json.dumps({**signed, "signature": ED_KEY.sign(rfc8785.dumps(signed)).hex()})


def sealed_b(receipt: dict[str, Any], algorithm: str, key_id: str) -> str:
    stamp = {"algo": algorithm, "key_id": key_id}
    signed = rfc8785.dumps({**receipt, "signature": stamp})
    if algorithm == "ed25519":
        value = ED_KEY.sign(signed).hex()
    else:
        value = KEY.sign_msg_hash(hashlib.sha256(signed).digest()).to_bytes().hex()
    return json.dumps({**receipt, "signature": {**stamp, "value": value}})


def statuses(text: str, session: Session = SESSION, call: Transcript = CALL) -> dict[str, str]:
    found: dict[str, str] = {
        one.name: one.status for one in check_message(call, text, session, policy=Policy())
    }
    assert set(found) == {*NAMES, "tls_pinned"}
    return found


def failing(text: str, session: Session = SESSION, call: Transcript = CALL) -> list[str]:
    return [name for name in NAMES if statuses(text, session, call)[name] == "fail"]


HONEST = [
    sealed_c(document()),
    sealed_b(document(), "ed25519", "ed"),
    sealed_b(document(), "ecdsa-secp256k1", "k1"),
]


@pytest.mark.parametrize("text", HONEST)
def test_an_honest_receipt_of_either_generation_passes_as_a_gateways(text: str):
    found = statuses(text)
    assert {found[name] for name in NAMES} == {"pass"}
    assert is_gateway_scope(text, SESSION)


@pytest.mark.parametrize("text", HONEST)
def test_any_encoding_of_the_same_receipt_passes(text: str):
    changed = json.dumps(json.loads(text), indent=3, sort_keys=True)
    assert failing(changed) == []


def test_a_receipt_is_not_read_without_end():
    bare = len(sealed_c(document(more="")))
    assert failing(sealed_c(document(more="x" * (64 * 1024 - bare)))) == []
    long = sealed_c(document(more="x" * (64 * 1024 - bare + 1)))
    found = check_message(CALL, long, SESSION, policy=Policy())
    [told] = [one for one in found if one.name == "signature_valid"]
    assert (told.status, told.detail) == ("fail", "what the provider answered is no signature")


@pytest.mark.parametrize("form", [POINT, b"\x04" + POINT, KEY.public_key.to_compressed_bytes()])
def test_a_key_may_be_written_in_three_forms(form: bytes):
    keys = {"k1": ("ecdsa-secp256k1", form.hex())}
    assert failing(HONEST[2], replace(SESSION, receipt_keys=keys)) == []


@pytest.mark.parametrize("key", ["", "00", POINT.hex()[:-2], "04", "zz"])
def test_a_key_that_is_none_signs_nothing(key: str):
    keys = {"k1": ("ecdsa-secp256k1", key), "ed": ("ed25519", key)}
    for text in HONEST:
        assert failing(text, replace(SESSION, receipt_keys=keys)) == ["signature_valid"]


@pytest.mark.parametrize("text", HONEST)
def test_no_member_of_a_receipt_can_be_another(text: str):
    receipt = json.loads(text)
    others: tuple[object, ...] = ("other", None, 7, {}, [])
    for name in receipt:
        for value in others:
            if name != "api_version":
                assert "signature_valid" in failing(json.dumps({**receipt, name: value}))
        without = {one: value for one, value in receipt.items() if one != name}
        assert statuses(json.dumps(without))["signature_valid"] == "fail"
    assert failing(json.dumps({**receipt, "more": 1})) == ["signature_valid"]


def test_a_receipt_of_a_key_that_is_not_attested_fails():
    assert failing(sealed_c(document(), "ed-2")) == ["signature_valid"]
    assert failing(HONEST[0], replace(SESSION, receipt_keys={})) == ["signature_valid"]


@pytest.mark.parametrize(("algorithm", "key_id"), [
    ("ed25519", "k1"), ("ecdsa-secp256k1", "ed"), ("rsa", "unknown"), ("none", "ed"), ("", ""),
])  # fmt: skip
def test_the_algorithm_is_the_keys_own(algorithm: str, key_id: str):
    assert failing(sealed_b(document(), algorithm, key_id)) == ["signature_valid"]


def test_a_secp256k1_key_does_not_sign_as_generation_c_does():
    assert failing(sealed_c(document(), "k1")) == ["signature_valid"]


def test_without_a_report_the_signature_is_open():
    assert statuses(HONEST[0], Session(factors=()))["signature_valid"] == "unknown"


@pytest.mark.parametrize(("changes", "wrong"), [
    ({"request_received": {"body_hash": "sha256:" + "9" * 64}}, ["request_hash"]),
    ({"request_received": {"body_hash": REQUEST}}, ["request_hash"]),
    ({"request_received": None}, ["request_hash"]),
    ({"response_returned": {"body_hash": "sha256:" + "9" * 64}}, ["response_hash"]),
    ({"response_returned": {"wire_hash": "sha256:" + "9" * 64,
                            "body_hash": f"sha256:{RESPONSE}"}}, ["response_hash"]),
    ({"response_returned": {"wire_hash": f"sha256:{RESPONSE}"}}, []),
    ({"response_returned": {"wire_hash": f"sha256:{RESPONSE}",
                            "body_hash": "sha256:" + "9" * 64}}, []),
    ({"response_returned": {"wire_hash": None, "body_hash": f"sha256:{RESPONSE}"}},
     ["response_hash"]),
    ({"response_returned": {}}, ["response_hash"]),
    ({"upstream_verified": {"result": "failed"}}, ["signature_scope"]),
    ({"upstream_verified": {}}, ["signature_scope"]),
    ({"upstream_verified": {"result": True}}, ["signature_scope"]),
    ({"upstream_verified": None}, []),
])  # fmt: skip
def test_its_events_are_about_our_bytes_and_a_machine_it_verified(
    changes: dict[str, Any], wrong: list[str]
):
    assert failing(sealed_c(document(events(**changes)))) == wrong


def test_an_event_that_comes_twice_says_nothing():
    twice = [*events(), {"type": "response.returned", "body_hash": f"sha256:{RESPONSE}"}]
    assert failing(sealed_c(document(twice))) == ["response_hash"]


def test_one_failed_verification_among_others_fails():
    more = [*events(), {"type": "upstream.verified", "result": "failed"}]
    assert failing(sealed_c(document(more))) == ["signature_scope"]


def test_the_model_is_ours_where_it_is_named():
    assert failing(sealed_c(document(model="org/other"))) == ["signature_model"]
    without = {name: value for name, value in document().items() if name != "model"}
    assert statuses(sealed_c(without))["signature_model"] == "skip"
    assert statuses(sealed_c(document(model=None)))["signature_model"] == "skip"


@pytest.mark.parametrize("log", [None, {}, "junk", [7, None, [], {"type": []}], "[]"])
def test_events_that_cannot_be_read_fail_and_do_not_raise(log: Any):
    receipt = {**document(), "event_log": log}
    assert failing(sealed_c(receipt)) == ["request_hash", "response_hash"]


@pytest.mark.parametrize("number", [2**60, -(2**70), 1.5e300])
def test_numbers_without_a_canonical_form_do_not_raise(number: float):
    text = json.dumps({**document(), "served_at": number, "key_id": "ed", "signature": "00" * 64})
    assert failing(text) == ["signature_valid"]


# ---- the published vectors


def lines() -> list[str]:
    text = vector("aci-spec/test-vectors.md").decode()
    return [block.strip() for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL)]


def published(member: str, *, last: bool = True) -> Any:
    found = [json.loads(one) for one in lines() if one.startswith("{") and f'"{member}"' in one
             and "\n" not in one]  # fmt: skip
    return found[-1 if last else 0]


def test_the_published_receipt_verifies_under_the_published_keyset():
    keyset, receipt = published("receipt_signing_keys"), published("receipt_id")
    assert keyset_digest(keyset) == receipt["workload_keyset_digest"]
    [key] = keyset["receipt_signing_keys"]
    session = replace(SESSION, receipt_keys={key["key_id"]: (key["algo"], key["public_key"])})
    call = a_transcript(
        upstream_model="demo-model",
        forwarded_request=_digest(
            b'{"messages":[{"content":"hi","role":"user"}],"model":"demo-model"}'
        ),
        upstream_response=_digest(b'{"choices":[],"id":"chatcmpl-123"}'),
    )
    assert {statuses(json.dumps(receipt), session, call)[name] for name in NAMES} == {"pass"}
    changed = json.dumps({**receipt, "served_at": receipt["served_at"] + 1})
    assert failing(changed, session, call) == ["signature_valid"]


def _digest(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest(), len(body))
