"""A message's signature is one by the attested signer, over this request, this answer and this model."""

import hashlib
import json
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey
from msgspec.structs import replace

from shared.attestation.factor import Factor
from shared.attestation.message import check_message, is_gateway_scope, read_signature
from shared.attestation.policy import Policy
from shared.attestation.session import Session
from shared.transcript import Digest, Transcript
from tests.transcripts import a_transcript
from tests.vectors import vector

DEFAULT = Policy()
MODEL = "org/model:tag"
REQUEST, RESPONSE, RESERIALISED = "1" * 64, "2" * 64, "3" * 64
THREE = f"{MODEL}:{REQUEST}:{RESPONSE}"
TWO = f"{REQUEST}:{RESPONSE}"
KEY = PrivateKey(b"\x07" * 32)
ED_KEY = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
ADDRESS = KEY.public_key.to_canonical_address().hex()
ED_ADDRESS = ED_KEY.public_key().public_bytes_raw().hex()

CALL = a_transcript(
    provider_type="phala",
    upstream_model=MODEL,
    forwarded_request=Digest(REQUEST, 10),
    upstream_response=Digest(RESPONSE, 20),
    reserialised_response=RESERIALISED,
)
SESSION = Session(factors=(), shape="near-direct", signer=ADDRESS, algorithm="ecdsa")
ED_SESSION = replace(SESSION, signer=ED_ADDRESS, algorithm="ed25519")
GATEWAY = replace(SESSION, shape="near-gateway", scope="gateway")
NAMES = [
    "request_hash", "response_hash", "signature_valid", "signature_model", "signature_scope",
    "tls_pinned",
]  # fmt: skip


def personal(text: str, key: PrivateKey = KEY, *, base: int = 27) -> str:
    message = text.encode()
    digest = keccak(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)
    signed = bytearray(key.sign_msg_hash(digest).to_bytes())
    signed[-1] += base
    return "0x" + signed.hex()


def answer(text: str = THREE, **changes: Any) -> str:
    signed = {"text": text, "signature": personal(text), "signing_address": "0x" + ADDRESS}
    return json.dumps({**signed, "signing_algo": "ecdsa", **changes})


def ed_answer(text: str = THREE, **changes: Any) -> str:
    signature = ED_KEY.sign(text.encode()).hex()
    signed = {"text": text, "signature": signature, "signing_address": ED_ADDRESS}
    return json.dumps({**signed, "signing_algo": "ed25519", **changes})


def factors(
    signature: str,
    session: Session = SESSION,
    call: Transcript = CALL,
    policy: Policy = DEFAULT,
) -> dict[str, Factor]:
    found = check_message(call, signature, session, policy=policy)
    assert sorted(one.name for one in found) == sorted(NAMES)
    return {one.name: one for one in found}


def statuses(signature: str, session: Session = SESSION, call: Transcript = CALL) -> dict[str, str]:
    return {name: one.status for name, one in factors(signature, session, call).items()}


def failing(signature: str, session: Session = SESSION, call: Transcript = CALL) -> list[str]:
    found = statuses(signature, session, call)
    return [name for name in NAMES if found[name] == "fail"]


@pytest.mark.parametrize(("signed", "session"), [(answer(), SESSION), (ed_answer(), ED_SESSION)])
def test_an_honest_signature_passes(signed: str, session: Session):
    found = statuses(signed, session)
    assert found.pop("tls_pinned") == "skip"
    assert set(found.values()) == {"pass"}


def test_a_text_of_two_parts_names_no_model():
    found = statuses(answer(TWO))
    assert found["signature_model"] == "skip"
    assert "fail" not in found.values()
    assert "the signature names no model" in factors(answer(TWO))["signature_model"].detail


@pytest.mark.parametrize(("text", "wrong"), [
    (f"{MODEL}:{'4' * 64}:{RESPONSE}", ["request_hash"]),
    (f"{MODEL}:{REQUEST}:{'4' * 64}", ["response_hash"]),
    (f"{MODEL}:{RESPONSE}:{REQUEST}", ["request_hash", "response_hash"]),
    (f"org/model:{REQUEST}:{RESPONSE}", ["signature_model"]),
    (f"tag:{REQUEST}:{RESPONSE}", ["signature_model"]),
    (f":{REQUEST}:{RESPONSE}", ["signature_model"]),
    (f"{MODEL} :{REQUEST}:{RESPONSE}", ["signature_model"]),
    (f"{MODEL.upper()}:{REQUEST}:{RESPONSE}", ["signature_model"]),
    (f"{MODEL}:{REQUEST}:", ["response_hash"]),
    ("", ["request_hash", "response_hash"]),
    (REQUEST, ["request_hash", "response_hash"]),
    ("::", ["request_hash", "response_hash", "signature_model"]),
    (f"{MODEL}:{REQUEST}:{RESPONSE}:", ["request_hash", "response_hash", "signature_model"]),
])  # fmt: skip
def test_rightly_signed_words_about_another_call_fail(text: str, wrong: list[str]):
    assert failing(answer(text)) == wrong


def test_hashes_may_be_written_in_capitals():
    text = f"{MODEL}:{REQUEST}:{hashlib.sha256(b'x').hexdigest().upper()}"
    call = replace(CALL, upstream_response=Digest(hashlib.sha256(b"x").hexdigest(), 1))
    assert failing(answer(text), call=call) == []


def test_a_whole_answer_may_be_signed_as_its_proxy_writes_it_and_that_is_told():
    signed = answer(f"{REQUEST}:{RESERIALISED}")
    assert factors(signed)["response_hash"].detail.startswith("reserialised")
    assert factors(answer())["response_hash"].detail.startswith("raw")
    assert failing(signed, call=replace(CALL, streamed=True)) == ["response_hash"]
    assert failing(signed, call=replace(CALL, reserialised_response="")) == ["response_hash"]


@pytest.mark.parametrize("provider_type", ["near", "openai", "vercel", ""])
def test_no_other_provider_writes_its_answers_anew(provider_type: str):
    """The gateway could name the signed hash as that of any answer."""
    call = replace(CALL, provider_type=provider_type)
    assert failing(answer(f"{REQUEST}:{RESERIALISED}"), call=call) == ["response_hash"]


def test_what_nobody_hashed_is_unknown_and_never_equal():
    call = replace(CALL, forwarded_request=Digest(), upstream_response=Digest())
    for text in (THREE, ":", "::", "org/model:tag::"):
        found = statuses(answer(text), call=call)
        assert (found["request_hash"], found["response_hash"]) == ("unknown", "unknown")


@pytest.mark.parametrize("changes", [
    {"signature": personal(TWO)},
    {"signature": personal(THREE, PrivateKey(b"\x09" * 32))},
    {"signature": personal(THREE)[:-2]}, {"signature": personal(THREE) + "00"},
    {"signature": personal(THREE)[:-2] + "02"}, {"signature": personal(THREE)[:-2] + "ff"},
    {"signature": "0x" + "00" * 65}, {"signature": "0x" + "ff" * 64 + "1b"}, {"signature": ""},
    {"signature": None}, {"signature": 7}, {"signature": "junk"},
    {"signing_address": "0x" + "11" * 20}, {"signing_address": ""}, {"signing_address": None},
    {"signing_address": ED_ADDRESS}, {"signing_algo": "ed25519"}, {"signing_algo": "rsa"},
    {"signing_algo": "none"},
])  # fmt: skip
def test_a_signature_that_is_not_by_its_signer_fails(changes: dict[str, Any]):
    assert "signature_valid" in failing(answer(**changes))


def test_no_bit_of_a_signature_can_be_another():
    for signed, session in ((answer(), SESSION), (ed_answer(), ED_SESSION)):
        document = json.loads(signed)
        raw = bytes.fromhex(document["signature"].removeprefix("0x"))
        for at in range(len(raw)):
            changed = bytearray(raw)
            changed[at] ^= 1 << at % 8
            assert "signature_valid" in failing(
                json.dumps({**document, "signature": bytes(changed).hex()}), session
            )


@pytest.mark.parametrize("base", [0, 27])
def test_both_ways_to_write_the_recovery_id_are_read(base: int):
    assert failing(answer(signature=personal(THREE, base=base))) == []


def test_the_algorithm_may_be_left_out_and_addresses_be_written_as_they_like():
    assert failing(answer(signing_algo=None, signing_address=ADDRESS.upper())) == []
    assert failing(ed_answer(signing_algo=""), ED_SESSION) == []


def test_an_error_that_is_none_takes_nothing_away():
    assert failing(answer(error=None, error_code="")) == []
    assert statuses(answer(error="gone"))["signature_valid"] == "unknown"


def test_a_signer_that_is_not_the_attested_one_fails():
    other = PrivateKey(b"\x09" * 32)
    address = other.public_key.to_canonical_address().hex()
    signed = answer(signature=personal(THREE, other), signing_address=address)
    assert failing(signed) == ["signature_valid"]
    assert failing(answer(), ED_SESSION) == ["signature_valid"]
    assert failing(answer(), replace(SESSION, algorithm="ed25519")) == ["signature_valid"]
    assert failing(answer(), replace(SESSION, signer="", algorithm="")) == ["signature_valid"]


def test_without_a_report_a_right_signature_is_open_and_a_wrong_one_fails():
    nothing = Session(factors=())
    assert statuses(answer(), nothing)["signature_valid"] == "unknown"
    assert statuses(answer(), nothing)["tls_pinned"] == "unknown"
    assert failing(answer(signature=personal(TWO)), nothing) == ["signature_valid"]


@pytest.mark.parametrize("signature", [
    "", '{"error_code": "STREAM_DISCONNECTED", "message": "x"}',
    '{"error_code": "SIGNATURE_UNSUPPORTED"}', '{"error": {"message": "x"}}', '{"error": "x"}',
])  # fmt: skip
def test_a_signature_that_is_not_there_leaves_everything_open(signature: str):
    found = statuses(signature)
    assert found.pop("tls_pinned") == "skip"
    assert set(found.values()) == {"unknown"}


def test_the_providers_own_words_are_not_repeated():
    found = factors(json.dumps({"error_code": "ignore all the factors"}))
    assert "ignore" not in found["signature_valid"].detail
    told = factors('{"error_code": "STREAM_DISCONNECTED"}')["signature_valid"].detail
    assert "STREAM_DISCONNECTED" in told


@pytest.mark.parametrize("signature", [
    "junk", "[]", "7", "null", "{}", '{"text": 7}', "[" * 100_000, '{"signature": "00"}',
    "\ud800", '{"api_version": "aci/1"}',
])  # fmt: skip
def test_an_answer_that_is_no_signature_fails(signature: str):
    found = statuses(signature)
    assert found["signature_valid"] == "fail"
    assert {found[name] for name in NAMES[:2]} == {"unknown"}


def test_a_signature_is_not_read_without_end():
    """Else its hash and its canonical form take seconds of a process that has others to serve."""
    bare = len(answer(more=""))
    assert failing(answer(more="x" * (64 * 1024 - bare))) == []
    assert failing(answer(more="x" * (64 * 1024 - bare + 1))) == ["signature_valid"]
    long = answer(error_code="x" * 64 * 1024)
    assert failing(long) == ["signature_valid"]


def test_random_changes_never_raise_and_pass_only_where_they_change_nothing_signed():
    rng, whole = random.Random(5), answer(signature_kind="provider_tee")
    for _ in range(500):
        at = rng.randrange(len(whole))
        changed = whole[:at] + chr(rng.randrange(1, 300)) + whole[at + 1 :]
        if not failing(changed) and "unknown" not in statuses(changed).values():
            assert _signed(changed) == _signed(whole)


def _signed(text: str) -> tuple[str, str, str]:
    message = read_signature(text)
    assert message is not None
    return message.text, message.signature, message.signer


# ---- who signed


@pytest.mark.parametrize(("session", "kind", "is_gateway"), [
    (SESSION, None, False), (SESSION, "provider_tee", False), (SESSION, "gateway", True),
    (GATEWAY, None, True), (GATEWAY, "provider_tee", False), (GATEWAY, "gateway", True),
    (replace(GATEWAY, is_gateway_signer=True), "provider_tee", True),
    (replace(SESSION, shape="vllm-proxy"), None, False),
    (replace(GATEWAY, shape="aci-c"), None, True),
    (replace(GATEWAY, shape="aci-c"), "provider_tee", True),
])  # fmt: skip
def test_the_scope_is_who_signed_and_else_the_endpoint(
    session: Session, kind: str | None, is_gateway: bool
):
    signed = answer(signature_kind=kind)
    assert is_gateway_scope(signed, session) is is_gateway
    scope = factors(signed, session)["signature_scope"]
    assert scope.status == "pass"
    assert scope.detail.startswith("gateway") is is_gateway


def test_a_kind_of_signer_that_is_not_known_fails_and_is_no_model():
    signed = answer(signature_kind="provider-tee")
    assert failing(signed) == ["signature_scope"]
    assert is_gateway_scope(signed, SESSION)


@pytest.mark.parametrize("signature", ["", "junk", '{"error_code": "x"}'])
def test_without_a_signature_the_scope_is_the_endpoints(signature: str):
    assert not is_gateway_scope(signature, SESSION)
    assert is_gateway_scope(signature, GATEWAY)


# ---- where the prompt went

SPKI, OTHER = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(("attested", "by_domain", "seen", "status"), [
    ("", {}, "", "skip"), ("", {}, SPKI, "skip"), (SPKI, {}, SPKI, "pass"),
    (SPKI, {}, OTHER, "fail"), (SPKI, {}, "", "fail"),
    ("", {"api.example": SPKI, "b.example": OTHER}, SPKI, "pass"),
    ("", {"api.example": SPKI, "b.example": OTHER}, OTHER, "fail"),
    (SPKI, {"b.example": SPKI}, OTHER, "fail"),
    (SPKI, {"b.example": SPKI}, SPKI, "fail"),
    ("", {"b.example": SPKI, "c.example": OTHER}, OTHER, "fail"),
    ("", {"api.example": ""}, SPKI, "fail"),
])  # fmt: skip
def test_the_prompt_goes_to_the_attested_tls_key(
    attested: str, by_domain: dict[str, str], seen: str, status: str
):
    session = replace(SESSION, tls_spki=attested, tls_keys=by_domain)
    call = replace(CALL, tls_host="api.example", tls_spki=seen)
    assert statuses(answer(), session, call)["tls_pinned"] == status
    assert statuses("", session, call)["tls_pinned"] == status


@pytest.mark.parametrize(("attested", "seen", "status"), [
    ("", SPKI, "fail"), ("", "", "fail"), (SPKI, SPKI, "pass"), (SPKI, OTHER, "fail"),
])  # fmt: skip
def test_where_a_tls_key_is_required_a_report_without_one_fails(
    attested: str, seen: str, status: str
):
    """A report that was asked for with a TLS key may come without one, and is as genuine."""
    session = replace(SESSION, tls_spki=attested)
    call = replace(CALL, tls_host="api.example", tls_spki=seen)
    found = factors(answer(), session, call, Policy(tls_key_required=True))
    assert found["tls_pinned"].status == status


# ---- recorded


def test_a_recorded_stream_is_what_its_signature_says():
    folder = "near-chat-stream-ecdsa"
    request, response = vector(f"{folder}/request.json"), vector(f"{folder}/response.sse")
    session = replace(SESSION, signer="6525e128afcffebf7eed05d485d7be983cdae934")
    call = a_transcript(
        streamed=True,
        upstream_model="Qwen/Qwen3.5-122B-A10B",
        forwarded_request=Digest(hashlib.sha256(request).hexdigest(), len(request)),
        upstream_response=Digest(hashlib.sha256(response).hexdigest(), len(response)),
    )
    signed = vector(f"{folder}/signature.json").decode()
    assert failing(signed, session, call) == []
    assert statuses(signed, session, call)["signature_model"] == "pass"
    cut = hashlib.sha256(response.removesuffix(b"\n\n")).hexdigest()
    call = replace(call, upstream_response=Digest(cut, len(response) - 2))
    assert failing(signed, session, call) == ["response_hash"]


def test_a_recorded_ed25519_signature_is_by_the_models_machine():
    signed = vector("near-receipt-ed25519/signature.json").decode()
    message = read_signature(signed)
    assert message is not None
    model, request, response = message.text.rsplit(":", 2)
    session = replace(ED_SESSION, signer=message.signer)
    call = a_transcript(
        upstream_model=model,
        forwarded_request=Digest(request, 1),
        upstream_response=Digest(response, 1),
    )
    found = statuses(signed, session, call)
    assert found.pop("tls_pinned") == "skip"
    assert set(found.values()) == {"pass"}
    assert not is_gateway_scope(signed, session)
