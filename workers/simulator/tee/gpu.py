"""Evidence of simulated GPUs: SPDM measurements signed by a key that the synthetic root certifies."""

import base64
import secrets
from collections.abc import Sequence
from functools import cached_property

import msgspec

from workers.simulator.tee.certificate import Identity
from workers.simulator.tee.ecdsa import sign_raw
from workers.simulator.tee.pki import Pki

ARCHITECTURE = "HOPPER"
REQUEST_HEAD = bytes.fromhex("11E00000")
SLOT = b"\0"
RESPONSE_HEAD = bytes.fromhex("11600000") + b"\0" + bytes(3)
"""No blocks, a record of no bytes."""
NO_OPAQUE_DATA = bytes(2)
RESPONDER_NONCE_BYTES = 32

_encode = msgspec.json.Encoder().encode


class Gpu:
    """`vice` is written into its certificate, where the simulated NRAS finds it."""

    def __init__(self, pki: Pki, name: str, *, vice: str = "") -> None:
        self._pki = pki
        self._name = name
        self._vice = vice

    def evidence(self, nonce: bytes) -> dict[str, str]:
        """One item of an evidence list."""
        signed = b"".join(
            [
                REQUEST_HEAD + nonce + SLOT,
                RESPONSE_HEAD + secrets.token_bytes(RESPONDER_NONCE_BYTES) + NO_OPAQUE_DATA,
            ]
        )
        evidence = signed + sign_raw(self._leaf.key, signed)
        return {
            "certificate": self._chain,
            "evidence": base64.b64encode(evidence).decode(),
            "arch": ARCHITECTURE,
        }

    @cached_property
    def _leaf(self) -> Identity:
        return self._pki.gpu(self._name, unit=self._vice)

    @cached_property
    def _chain(self) -> str:
        chain = self._leaf.pem + self._pki.gpu_ca.pem + self._pki.gpu_root.pem
        return base64.b64encode(chain.encode()).decode()


def payload(nonce: bytes, evidence: Sequence[dict[str, str]]) -> str:
    """The body of a request to NRAS, as reports carry it."""
    document = {"nonce": nonce.hex(), "evidence_list": evidence, "arch": ARCHITECTURE}
    return _encode(document).decode()


def spoilt(item: dict[str, str]) -> dict[str, str]:
    """With one bit of its signature changed."""
    evidence = bytearray(base64.b64decode(item["evidence"]))
    evidence[-1] ^= 1
    return {**item, "evidence": base64.b64encode(evidence).decode()}
