"""Mints GPU evidence and NVIDIA's answers about it, under a root of its own, with any fault."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shared.attestation.roots import NRAS_ISSUER, SYNTHETIC_ORGANISATION, Roots

NONCE = "5a" * 32
NOW = 1_790_000_000.0
_AROUND = datetime.fromtimestamp(NOW, UTC)
TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1")


def p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def certificate(
    name: str,
    key: Any,
    issuer: tuple[str, Any],
    *,
    ca: bool,
    tcb_info: bytes = b"",
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, SYNTHETIC_ORGANISATION)
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer[0]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_AROUND - timedelta(days=365))
        .not_valid_after(_AROUND + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if tcb_info:
        builder = builder.add_extension(x509.UnrecognizedExtension(TCB_INFO, tcb_info), False)
    return builder.sign(issuer[1], hashes.SHA384())


def raw(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@dataclass(frozen=True)
class Maker:
    """NVIDIA's part: the GPUs' root and the attestation service's key."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=p384)
    middle_key: ec.EllipticCurvePrivateKey = field(default_factory=p384)
    nras_key: ec.EllipticCurvePrivateKey = field(default_factory=p384)
    middle_is_ca: bool = True

    @cached_property
    def root(self) -> x509.Certificate:
        return certificate("root", self.root_key, ("root", self.root_key), ca=True)

    @cached_property
    def middle(self) -> x509.Certificate:
        issuer = ("root", self.root_key)
        return certificate("middle", self.middle_key, issuer, ca=self.middle_is_ca)

    @property
    def roots(self) -> Roots:
        der = self.root.public_bytes(Encoding.DER)
        return Roots(
            name="synthetic", intel_der=None, nvidia_sha256=hashlib.sha256(der).hexdigest(),
            nras_issuer=NRAS_ISSUER, synthetic=True,
        )  # fmt: skip

    @property
    def keys(self) -> str:
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.nras_key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**public, "kid": "kid-1", "use": "sig"}]})


@dataclass(frozen=True)
class Gpu:
    """One GPU's item, each part of which can be another."""

    maker: Maker
    key: Any = field(default_factory=p384)
    nonce: str = NONCE
    request_head: bytes = b"\x11\xe0\x00\x00"
    response_head: bytes = b"\x11\x60\x00\x00\x00"
    record: bytes = b""
    record_length: int | None = None
    opaque: bytes = b""
    opaque_length: int | None = None
    tcb_info: bytes = b""
    tail: bytes = b""

    @cached_property
    def chain(self) -> list[x509.Certificate]:
        issuer = ("middle", self.maker.middle_key)
        leaf = certificate("leaf", self.key, issuer, ca=False, tcb_info=self.tcb_info)
        return [leaf, self.maker.middle, self.maker.root]

    @property
    def evidence(self) -> bytes:
        record = len(self.record) if self.record_length is None else self.record_length
        opaque = len(self.opaque) if self.opaque_length is None else self.opaque_length
        signed = b"".join((
            self.request_head, bytes.fromhex(self.nonce), b"\0",
            self.response_head, record.to_bytes(3, "little"), self.record, b"\7" * 32,
            opaque.to_bytes(2, "little"), self.opaque, self.tail,
        ))  # fmt: skip
        return signed + raw(self.key.sign(signed, ec.ECDSA(hashes.SHA384())))

    def item(self) -> dict[str, Any]:
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in self.chain)
        return {
            "certificate": base64.b64encode(pem).decode(),
            "evidence": base64.b64encode(self.evidence).decode(),
            "arch": "HOPPER",
        }


def payload(*items: Any, nonce: str = NONCE) -> str:
    return json.dumps({"nonce": nonce, "evidence_list": list(items), "arch": "HOPPER"})


def fields(*given: tuple[int, bytes]) -> bytes:
    return b"".join(
        kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
        for kind, value in given
    )


@dataclass(frozen=True)
class Answer:
    """What the attestation service says of some GPUs, each claim of which can be another."""

    maker: Maker
    gpus: int = 2
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Of the overall token."""
    gpu_claims: Mapping[str, Any] = field(default_factory=dict)
    """Of each GPU's token."""
    headers: Mapping[str, Any] = field(default_factory=lambda: {"kid": "kid-1"})
    algorithm: str = "ES384"
    key: Any = None

    def but(self, **changes: Any) -> "Answer":
        return replace(self, **changes)

    def token(self, claims: Mapping[str, Any]) -> str:
        key: Any = self.maker.nras_key if self.key is None else self.key
        return jwt.encode(dict(claims), key, self.algorithm, dict(self.headers))

    @property
    def common(self) -> dict[str, Any]:
        times = {"iat": int(NOW), "nbf": int(NOW), "exp": int(NOW) + 3600}
        return {"iss": NRAS_ISSUER, "eat_nonce": NONCE, **times}

    @cached_property
    def tokens(self) -> dict[str, str]:
        measured = {
            "measres": "success",
            "dbgstat": "disabled",
            "secboot": True,
            "hwmodel": "GH100",
        }
        return {
            f"GPU-{index}": self.token(
                self.common | measured | {"jti": str(index)} | dict(self.gpu_claims)
            )
            for index in range(self.gpus)
        }

    @property
    def text(self) -> str:
        return self.with_tokens(lambda tokens: tokens)

    def with_tokens(self, change: Callable[[dict[str, str]], dict[str, str]]) -> str:
        submods = {
            name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
            for name, token in self.tokens.items()
        }
        overall = {"x-nvidia-overall-att-result": True, "submods": submods}
        token = self.token(self.common | overall | dict(self.claims))
        return json.dumps([["JWT", token], change(dict(self.tokens))])
