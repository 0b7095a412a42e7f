"""NVIDIA's remote attestation service, simulated: tokens over a payload of GPU evidence."""

import base64
import binascii
import hashlib
from collections.abc import Mapping

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.attestation.roots import NRAS_ISSUER
from shared.ids import new_id
from workers.simulator.tee.ecdsa import public_raw
from workers.simulator.tee.pki import Pki

TOKEN_SECONDS = 3600
SUBJECT = "NVIDIA-PLATFORM-ATTESTATION"
MODEL, DRIVER, VBIOS = "GH100", "550.90.07", "96.00.9F.00.01"
NONCE_AT = 4
NONCE_BYTES = 32
COORDINATE_BYTES = 48


class Item(msgspec.Struct):
    certificate: str
    evidence: str


class Payload(msgspec.Struct):
    nonce: str
    evidence_list: list[Item]


class Nras:
    """What is wrong with its answer, if anything is meant to be, stands in a GPU's certificate."""

    def __init__(self, pki: Pki) -> None:
        self._key = pki.nras_key
        self._kid = "synthetic-" + hashlib.sha256(public_raw(self._key)).hexdigest()[:16]

    def keys(self) -> dict[str, object]:
        """The JWKS."""
        raw = public_raw(self._key)
        x, y = raw[:COORDINATE_BYTES], raw[COORDINATE_BYTES:]
        key = {"kty": "EC", "crv": "P-384", "kid": self._kid, "use": "sig", "alg": "ES384"}
        return {"keys": [{**key, "x": _base64url(x), "y": _base64url(y)}]}

    def attest(self, payload: Payload, *, now: float, vice: str = "") -> list[object]:
        """The overall token and one for each GPU."""
        nonce = "ff" * NONCE_BYTES if vice == "nras-nonce" else payload.nonce
        claims = _claims(nonce, now - 2 * TOKEN_SECONDS if vice == "nras-expired" else now)
        fresh = [_nonce(item) == payload.nonce for item in payload.evidence_list]
        genuine = [one and vice != "nras-false" for one in fresh]
        tokens = {
            f"GPU-{n}": self._token(claims | _gpu_claims(success=one), vice)
            for n, one in enumerate(genuine)
        }
        overall = {
            **claims,
            "sub": SUBJECT,
            "x-nvidia-overall-att-result": bool(genuine) and all(genuine),
            "submods": {name: ["DIGEST", ["SHA-256", _digest(t)]] for name, t in tokens.items()},
        }
        return [["JWT", self._token(overall, vice)], tokens]

    def _token(self, claims: Mapping[str, object], vice: str) -> str:
        if vice == "nras-alg-none":
            return jwt.encode(dict(claims), "", algorithm="none", headers={"kid": self._kid})
        key = ec.generate_private_key(ec.SECP384R1()) if vice == "nras-key" else self._key
        return jwt.encode(dict(claims), key, algorithm="ES384", headers={"kid": self._kid})


def vice_of(payload: Payload) -> str:
    """What the first GPU's certificate says is wrong with it."""
    if not payload.evidence_list:
        return ""
    try:
        pem = base64.b64decode(payload.evidence_list[0].certificate, validate=True)
        subject = x509.load_pem_x509_certificate(pem).subject
    except (ValueError, binascii.Error):
        return ""
    units = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(units[0].value) if units else ""


def _claims(nonce: str, now: float) -> dict[str, object]:
    at = int(now)
    times = {"iat": at, "nbf": at, "exp": at + TOKEN_SECONDS}
    return {"iss": NRAS_ISSUER, **times, "eat_nonce": nonce, "jti": new_id()}


def _gpu_claims(*, success: bool) -> dict[str, object]:
    return {
        "measres": "success" if success else "fail",
        "hwmodel": MODEL,
        "dbgstat": "disabled",
        "secboot": True,
        "x-nvidia-gpu-driver-version": DRIVER,
        "x-nvidia-gpu-vbios-version": VBIOS,
    }


def _nonce(item: Item) -> str:
    """That of the SPDM request."""
    try:
        evidence = base64.b64decode(item.evidence, validate=True)
    except binascii.Error:
        return ""
    return evidence[NONCE_AT : NONCE_AT + NONCE_BYTES].hex()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _base64url(number: bytes) -> str:
    return base64.urlsafe_b64encode(number).rstrip(b"=").decode()
