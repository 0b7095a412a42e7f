"""GPU evidence, NVIDIA's tokens, event logs and signatures, each opened with an ordinary library."""

import base64
import hashlib
import json
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from eth_hash.auto import keccak
from eth_keys.datatypes import Signature

from tests.minted import NONCE, REQUEST, STREAM, WHOLE, minted, tee
from workers.simulator.tee.event_log import replayed
from workers.simulator.tee.fleet import NEAR_MODEL, VLLM_PROXY

GPUS = {"near-direct": 8, "phala": 1}


def evidence(profile: str = "near-direct", model: str = "sim/chat") -> list[dict[str, str]]:
    report = json.loads(minted(profile, model=model).evidence.report)
    payload = json.loads(report["nvidia_payload"])
    assert payload["nonce"] == NONCE
    items: list[dict[str, str]] = payload["evidence_list"]
    return items


def chain(item: dict[str, str]) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(base64.b64decode(item["certificate"]))


def check_measurement(item: dict[str, str]) -> None:
    """Raises InvalidSignature."""
    raw = base64.b64decode(item["evidence"])
    assert raw[:4] == bytes.fromhex("11E00000")
    assert raw[4:36].hex() == NONCE
    assert raw[37:41] == bytes.fromhex("11600000")
    signed, signature = raw[:-96], raw[-96:]
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    key = chain(item)[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize(("profile", "count"), GPUS.items())
def test_every_gpu_has_signed_the_nonce_with_a_key_of_its_own(profile: str, count: int):
    items = evidence(profile)
    for item in items:
        check_measurement(item)
    keys = {chain(item)[0].fingerprint(hashes.SHA256()) for item in items}
    assert len(items) == len(keys) == count


def test_a_gpu_is_certified_up_to_the_synthetic_root():
    leaf, intermediate, root = chain(evidence()[0])
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    der = root.public_bytes(Encoding.DER)
    assert hashlib.sha256(der).hexdigest() == tee().pki.roots.nvidia_sha256


def test_a_spoilt_measurement_is_found_out():
    *good, spoilt = evidence(model="tee-gpu-signature")
    for item in good:
        check_measurement(item)
    with pytest.raises(InvalidSignature):
        check_measurement(spoilt)


def test_the_same_gpu_twice_has_the_same_certificate():
    items = evidence(model="tee-duplicated-gpu")
    keys = {chain(item)[0].fingerprint(hashes.SHA256()) for item in items}
    assert len(keys) < len(items)


def tokens(model: str = "sim/chat") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The claims of the overall token and of each GPU's. Raises jwt.InvalidTokenError."""
    case = minted(model=model)
    (_, overall), of_gpus = json.loads(case.evidence.nras)
    keys = jwt.PyJWKSet.from_json(case.evidence.nras_keys)
    claims = {name: opened(token, keys) for name, token in of_gpus.items()}
    told = opened(overall, keys)
    named = {name: digest[1][1] for name, digest in told["submods"].items()}
    assert named == {n: hashlib.sha256(t.encode()).hexdigest() for n, t in of_gpus.items()}
    return told, claims


def opened(token: str, keys: jwt.PyJWKSet) -> dict[str, Any]:
    key = keys[jwt.get_unverified_header(token)["kid"]]
    unchecked = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=["ES384"], options=unchecked)  # type: ignore[arg-type]
    return claims


def test_nvidia_vouches_for_every_gpu():
    overall, of_gpus = tokens()
    assert overall["x-nvidia-overall-att-result"] is True
    assert overall["iss"] == "https://nras.attestation.nvidia.com"
    assert overall["eat_nonce"] == NONCE
    assert overall["exp"] - overall["nbf"] == 3600
    assert sorted(of_gpus) == [f"GPU-{n}" for n in range(8)]
    for claims in of_gpus.values():
        shown = claims["measres"], claims["dbgstat"], claims["secboot"], claims["eat_nonce"]
        assert shown == ("success", "disabled", True, NONCE)


def test_nvidia_may_say_no():
    overall, of_gpus = tokens("tee-nras-false")
    assert overall["x-nvidia-overall-att-result"] is False
    assert {claims["measres"] for claims in of_gpus.values()} == {"fail"}


def test_evidence_for_another_nonce_is_no_success_at_nvidias():
    assert tokens("tee-gpu-nonce")[0]["x-nvidia-overall-att-result"] is False


@pytest.mark.parametrize("fault", ["nras-alg-none", "nras-key"])
def test_tokens_that_nvidia_has_not_signed_do_not_open(fault: str):
    with pytest.raises(jwt.InvalidTokenError):
        tokens(f"tee-{fault}")


def test_no_evidence_is_no_success_at_nvidias():
    case = minted(model="tee-empty-evidence")
    (_, overall), of_gpus = json.loads(case.evidence.nras)
    keys = jwt.PyJWKSet.from_json(case.evidence.nras_keys)
    assert opened(overall, keys)["x-nvidia-overall-att-result"] is False
    assert of_gpus == {}


def test_runtime_events_hash_to_their_digests_and_replay_to_the_registers():
    node = tee().fleet.nodes(NEAR_MODEL)[0]
    runtime = [event for event in node.log if event.imr == 3]
    for event in runtime:
        measured = b"\x01\x00\x00\x08:" + event.event.encode() + b":"
        payload = bytes.fromhex(event.event_payload)
        assert hashlib.sha384(measured + payload).hexdigest() == event.digest
    assert [event.event for event in runtime][-1] == "system-ready"
    assert replayed(node.log) == node.measurements.rtmrs


def test_ethereums_way_of_signing_recovers_the_address():
    answer = json.loads(minted().evidence.signature)
    message = answer["text"].encode()
    prefixed = b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message
    raw = bytes.fromhex(answer["signature"].removeprefix("0x"))
    assert raw[64] in (27, 28)
    key = Signature(raw[:64] + bytes([raw[64] - 27])).recover_public_key_from_msg_hash(
        keccak(prefixed)
    )
    assert key.to_address() == answer["signing_address"]


def test_an_ed25519_signature_is_over_the_text_itself():
    answer = json.loads(minted(algorithm="ed25519").evidence.signature)
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(answer["signing_address"]))
    key.verify(bytes.fromhex(answer["signature"]), answer["text"].encode())


@pytest.mark.parametrize(
    ("profile", "streamed", "parts", "kind"),
    [
        ("near-direct", False, 3, "provider_tee"),
        ("near-direct", True, 3, "provider_tee"),
        ("near", False, 3, "provider_tee"),
        ("near", True, 2, "gateway"),
        ("phala", False, 2, None),
        ("phala", True, 2, None),
    ],
)
def test_the_text_names_the_bytes_that_went_over_the_wire(
    profile: str, streamed: bool, parts: int, kind: str | None
):
    answer = json.loads(minted(profile, streamed=streamed).evidence.signature)
    response = STREAM if streamed else WHOLE
    hashes_told = answer["text"].split(":")
    assert hashes_told[-2:] == [hashlib.sha256(one).hexdigest() for one in (REQUEST, response)]
    assert (len(hashes_told), answer.get("signature_kind")) == (parts, kind)


def test_one_dump_is_sent_and_another_one_signed():
    answer = json.loads(minted("phala", model="tee-reserialised").evidence.signature)
    dumped = json.dumps(json.loads(WHOLE)).encode()
    assert dumped != WHOLE
    assert answer["text"].split(":")[-1] == hashlib.sha256(dumped).hexdigest()
    streamed = json.loads(
        minted("phala", model="tee-reserialised", streamed=True).evidence.signature
    )
    assert streamed["text"].split(":")[-1] == hashlib.sha256(STREAM).hexdigest()


def test_several_nodes_stand_behind_one_address_and_are_found_by_their_signers():
    nodes = tee().fleet.nodes(VLLM_PROXY)
    wanted = nodes[2].ecdsa.address
    query = {"nonce": NONCE, "signing_address": wanted.upper().replace("0X", "0x")}
    report = json.loads(tee().report("phala", query, model="sim/chat"))
    assert report["signing_address"] == wanted
    shown = {one["signing_address"] for one in report["all_attestations"]}
    assert shown == {node.ecdsa.address for node in nodes}
    assert len(shown) == 3
