"""What NEAR and vllm-proxy have in common: two- and three-part texts, and an attestation's members."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from functools import cache

from workers.simulator.problems import Refused
from workers.simulator.tee.fleet import STRANGERS, Fleet
from workers.simulator.tee.messages import Message
from workers.simulator.tee.node import Node, address_form, flipped
from workers.simulator.tee.signer import Signer

ALGORITHMS = ("ecdsa", "ed25519")
NONCE_BYTES = 32
OTHER_MODEL = "sim/another"
OTHER_HASH = hashlib.sha256(b"something else").hexdigest()
STRANGER = "other-signer"

Json = dict[str, object]


def algorithm_of(query: Mapping[str, str], default: str) -> str:
    """Raises Refused (400)."""
    algorithm = query.get("signing_algo", default)
    if algorithm not in ALGORITHMS:
        raise Refused(400, "Invalid signing algorithm.", param="signing_algo")
    return algorithm


def nonce_of(query: Mapping[str, str]) -> bytes:
    """Theirs, or one of ours where they gave none. Raises Refused (400)."""
    given = query.get("nonce")
    if given is None:
        return _own_nonce()
    try:
        nonce = bytes.fromhex(given)
    except ValueError:
        nonce = b""
    if len(nonce) != NONCE_BYTES:
        raise Refused(400, "The nonce must be 32 bytes, as hex.", param="nonce")
    return nonce


def text_of(message: Message, *, with_model: bool) -> str:
    """What is signed about an answer."""
    fault = message.fault
    request = OTHER_HASH if fault == "wrong-request" else message.request
    response = OTHER_HASH if fault == "wrong-response" else message.response
    model = OTHER_MODEL if fault == "other-model" else message.model
    hashes = f"{request}:{response}"
    return f"{model}:{hashes}" if with_model or fault == "other-model" else hashes


def signed(message: Message, *, signer: Signer, stranger: Signer, with_model: bool) -> Json:
    """An answer about a signature. `stranger` is attested nowhere."""
    chosen = stranger if message.fault == STRANGER else signer
    text = text_of(message, with_model=with_model)
    signature = chosen.sign(text)
    if message.fault == "wrong-signature":
        prefix, raw = ("0x", signature[2:]) if signature.startswith("0x") else ("", signature)
        signature = prefix + flipped(bytes.fromhex(raw), 5).hex()
    if message.fault == "signature-garbage":
        signature = "0xnothing"
    return {
        "text": text,
        "signature": signature,
        "signing_address": chosen.address,
        "signing_algo": chosen.algorithm,
    }


def stranger_of(fleet: Fleet, algorithm: str) -> Signer:
    """A signer that no report of any service shows."""
    return fleet.nodes(STRANGERS)[0].signer(algorithm)


def attestation(node: Node, *, algorithm: str, nonce: bytes, tls_spki: str = "") -> Json:
    """The members that every report of a node has; how its log is written is the service's own."""
    signer = node.signer(algorithm)
    quote = node.quote(report_data(node, signer, nonce, tls_spki=tls_spki))
    gpus = node.nvidia_payload(nonce)
    members: Json = {
        "signing_address": signer.address,
        "signing_algo": algorithm,
        "signing_public_key": signer.public_key,
        "request_nonce": nonce.hex(),
        "intel_quote": quote.hex(),
        **({"nvidia_payload": gpus} if gpus else {}),
        **({"event_log": node.shown_log} if node.fault != "no-event-log" else {}),
        "info": _info(node),
    }
    return members | {"tls_cert_fingerprint": tls_spki} if tls_spki else members


def report_data(node: Node, signer: Signer, nonce: bytes, *, tls_spki: str = "") -> bytes:
    if node.fault == "foreign-nonce":
        nonce = secrets.token_bytes(NONCE_BYTES)
    if node.fault == "stale-report":
        nonce = hashlib.sha256(b"an hour ago").digest()
    if node.fault == "unbound-signer":
        signer = node.signer("ed25519" if signer.algorithm == "ecdsa" else "ecdsa")
    return address_form(signer, nonce, tls_spki=tls_spki)


def log_as_text(members: Json) -> Json:
    """Some services write the event log as a string of JSON."""
    if "event_log" not in members:
        return members
    return {**members, "event_log": json.dumps(members["event_log"])}


def _info(node: Node) -> Mapping[str, object]:
    if node.fault != "no-event-log":
        return node.info
    told = node.info["tcb_info"]
    claims = dict(told) if isinstance(told, Mapping) else {}
    claims.pop("event_log")
    return {**node.info, "tcb_info": claims}


@cache
def _own_nonce() -> bytes:
    """The same every time: a report that nobody gave a nonce for is an old one."""
    return secrets.token_bytes(NONCE_BYTES)
