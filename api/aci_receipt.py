"""A receipt in the form of ACI (aci/1, generation C), for verifiers that read this one.

It says what went over the wires, signed by the gateway's receipt key. It does not say what the call
ran on: that is in the receipt itself.
"""

from collections.abc import Mapping
from typing import Any

from api.usage_entry import path_of
from shared.attestation.report_data import keyset_digest
from shared.attestation.signing import ALGORITHM, ReceiptKey

API_VERSION = "aci/1"
CHAT, CHAT_ID = "chat.completions", "chatcmpl-"
EVENTS = {
    "request.received": "client_request",
    "request.forwarded": "forwarded_request",
    "response.received": "upstream_response",
    "response.returned": "client_response",
}


def aci_receipt(document: Mapping[str, Any], key: ReceiptKey) -> dict[str, Any]:
    """Of a receipt's document. Hashes of bytes that nobody saw have no event."""
    hashes = {name: one["sha256"] for name, one in document["hashes"].items()}
    receipt = {
        "api_version": API_VERSION,
        "receipt_id": document["receipt_id"],
        "chat_id": chat_id_of(document),
        "model": document["model"],
        "endpoint": path_of(document["endpoint"]),
        "method": "POST",
        "served_at": int(document["ended_at"]),
        "workload_keyset_digest": keyset_digest(keyset_of(key)),
        "event_log": [
            {"type": kind, "body_hash": f"sha256:{hashes[name]}"}
            for kind, name in EVENTS.items()
            if hashes[name]
        ],
        "key_id": key.key_id,
    }
    return {**receipt, "signature": key.sign(receipt)}


def keyset_of(key: ReceiptKey) -> dict[str, Any]:
    """No machine attests it: it is the gateway's own."""
    signer = {"algo": ALGORITHM, "key_id": key.key_id, "public_key": key.public_key.hex()}
    return {"e2ee_public_keys": [], "receipt_signing_keys": [signer], "tls_public_keys": []}


def chat_id_of(document: Mapping[str, Any]) -> str:
    """The `id` of the answer that a client got."""
    request_id: str = document["request_id"]
    if document["endpoint"] == CHAT:
        return CHAT_ID + request_id.replace("-", "")
    return request_id
