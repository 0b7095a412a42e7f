"""Resold nodes, of Chutes and Tinfoil: machines that attest, and never sign a message."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping

from workers.simulator.tee.classic import NONCE_BYTES, Json
from workers.simulator.tee.fleet import CHUTES, TINFOIL, Fleet
from workers.simulator.tee.node import Node


class Chutes:
    """The nonce is the server's: whoever sent one of his own learns nothing about when."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json:  # noqa: ARG002
        nonce = secrets.token_hex(NONCE_BYTES)
        nodes = self._fleet.nodes(CHUTES, fault)
        return {
            "attestation_type": "chutes",
            "nonce": nonce,
            "all_attestations": [_instance(node, nonce) for node in nodes],
        }


class Tinfoil:
    """Key material in the report data, and no nonce at all."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json:  # noqa: ARG002
        node = self._fleet.nodes(TINFOIL, fault)[0]
        spki = bytes.fromhex(node.tls_spki) or hashlib.sha256(node.secret("tls")).digest()
        hpke = hashlib.sha256(node.secret("hpke")).digest()
        return {
            "attestation_type": "tinfoil",
            "intel_quote": node.quote(spki + hpke).hex(),
            "tls_public_key_fingerprint": spki.hex(),
            "hpke_public_key": hpke.hex(),
        }


def _instance(node: Node, nonce: str) -> Json:
    key = base64.b64encode(node.secret("end to end")).decode()
    bound = hashlib.sha256((nonce + key).encode()).digest()
    gpus = node.nvidia_payload(bound)
    return {
        "instance_id": node.name,
        "nonce": nonce,
        "e2e_pubkey": key,
        "intel_quote": base64.b64encode(node.quote(bound + bytes(32))).decode(),
        "gpu_evidence": json.loads(gpus)["evidence_list"] if gpus else [],
    }
