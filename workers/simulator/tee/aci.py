"""ACI gateways of generation B, whose workload has an identity, and of generation C."""

from collections.abc import Mapping

from typing_extensions import override

from workers.simulator.tee.aci_gateway import (
    NOT_AFTER,
    PURPOSE,
    AciGateway,
    canonical,
    digest,
    response_of,
    spoilt,
    tls_keys,
)
from workers.simulator.tee.classic import STRANGER, Json
from workers.simulator.tee.fleet import ACI_B, ACI_C
from workers.simulator.tee.messages import Message
from workers.simulator.tee.node import Node
from workers.simulator.tee.signer import EcdsaSigner, Signer

ENDORSEMENT_PURPOSE = "aci.keyset.endorsement.v1"
KEYSET_VERSION = 1
SECP256K1, ED25519 = "ecdsa-secp256k1", "ed25519"
B_KEY_ID, C_KEY_ID = "receipt-v1", "receipt-1"
NO_RECOVERY = 128
"""Hex digits of r and s: an endorsement says no more."""


class AciB(AciGateway):
    """June 2026: a workload identity endorses the keyset; receipts are signed on secp256k1."""

    service = ACI_B

    @override
    def keyset(self, node: Node) -> Json:
        return {
            "workload_identity": {
                "public_key": {"algo": SECP256K1, "public_key": _identity_key(node).public_key},
                "subject": None,
            },
            "keyset_epoch": {"version": KEYSET_VERSION, "not_after": NOT_AFTER},
            "receipt_signing_keys": [
                {
                    "key_id": B_KEY_ID,
                    "algo": SECP256K1,
                    "public_key": _receipt_key(node).public_key,
                }
            ],
            "e2ee_public_keys": [
                {
                    "key_id": "e2ee-v1",
                    "algo": "secp256k1-aes-256-gcm",
                    "public_key": node.ecdsa.public_key,
                }
            ],
            "tls_public_keys": tls_keys(node),
        }

    @override
    def identity(self, keyset: Json) -> Json:
        identity = keyset["workload_identity"]
        if not isinstance(identity, Mapping):
            raise TypeError("a keyset of this generation has an identity")
        return {"workload_id": digest(identity["public_key"])}

    @override
    def statement(self, keyset: Json, nonce: str | None) -> Json:
        return {
            "purpose": PURPOSE,
            **self.identity(keyset),
            "workload_keyset_digest": digest(keyset),
            "nonce": nonce,
        }

    @override
    def shown(self, bound: bytes) -> str:
        return bound.hex()

    @override
    def endorsement(self, node: Node, keyset: Json) -> Json:
        statement = {"purpose": ENDORSEMENT_PURPOSE, "workload_keyset_digest": digest(keyset)}
        value = _identity_key(node).sign_digest(canonical(statement))
        return {"keyset_endorsement": {"algo": SECP256K1, "value": value[:NO_RECOVERY]}}

    @override
    def signature(self, message: Message, query: Mapping[str, str]) -> Json:
        """The report's alias shows the key that encrypts; the one that signs is another."""
        shown = {"signing_address": self.node(message.fault).ecdsa.address}
        return super().signature(message, query) | shown

    @override
    def alias_signer(self, node: Node) -> Signer:
        return _receipt_key(node)

    @override
    def signed_receipt(self, node: Node, message: Message, receipt: Json) -> Json:
        key = _receipt_key(node)
        if message.fault == STRANGER:
            key = _receipt_key(self.stranger)
        head = {"algo": SECP256K1, "key_id": B_KEY_ID}
        value = key.sign_digest(canonical({**receipt, "signature": head}))
        return {**receipt, "signature": {**head, "value": spoilt(value, message.fault)}}

    @override
    def returned(self, message: Message) -> Json:
        return {"type": "response.returned", "wire_hash": response_of(message)}


class AciC(AciGateway):
    """August 2026: the quote binds the keyset itself; receipts are signed by ed25519."""

    service = ACI_C

    @override
    def keyset(self, node: Node) -> Json:
        key = {"algo": ED25519, "key_id": C_KEY_ID}
        return {
            "e2ee_public_keys": [],
            "not_after": NOT_AFTER,
            "receipt_signing_keys": [{**key, "public_key": node.ed25519.public_key}],
            "subject": "dstack-app://simulator",
            "tls_public_keys": tls_keys(node),
        }

    @override
    def identity(self, keyset: Json) -> Json:
        return {}

    @override
    def statement(self, keyset: Json, nonce: str | None) -> Json:
        return {"keyset_digest": digest(keyset), "nonce": nonce, "purpose": PURPOSE}

    @override
    def shown(self, bound: bytes) -> str:
        return (bound + bytes(32)).hex()

    @override
    def endorsement(self, node: Node, keyset: Json) -> Json:
        return {}

    @override
    def signed_receipt(self, node: Node, message: Message, receipt: Json) -> Json:
        signer = node if message.fault != STRANGER else self.stranger
        receipt = {**receipt, "key_id": C_KEY_ID}
        signature = signer.ed25519.sign_bytes(canonical(receipt))
        return {**receipt, "signature": spoilt(signature, message.fault)}

    @override
    def returned(self, message: Message) -> Json:
        return {"type": "response.returned", "body_hash": response_of(message)}


def _identity_key(node: Node) -> EcdsaSigner:
    return EcdsaSigner(node.secret("workload identity"))


def _receipt_key(node: Node) -> EcdsaSigner:
    return EcdsaSigner(node.secret("receipts"))
