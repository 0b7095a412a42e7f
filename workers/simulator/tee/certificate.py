"""Certificates and keys of the synthetic PKI, all marked as such; and one extension of Intel's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.attestation.roots import SYNTHETIC_ORGANISATION

VALID_BEFORE = timedelta(days=365)
VALID_AFTER = timedelta(days=3650)
SGX_EXTENSION = "1.2.840.113741.1.13.1"
"""Intel's PCK certificate profile: what kind of platform it is."""
PCE_SVN = 11

_NO_OTHER_USAGE = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}

Extension = tuple[x509.ExtensionType, bool]
"""And whether it is critical."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and the certificate over it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def spki(self) -> bytes:
        return self.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_pem(self) -> str:
        return private_pem(self.key)


def issued(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    by: Identity | None,
    now: float,
    is_ca: bool = False,
    unit: str = "",
    extensions: Sequence[Extension] = (),
) -> Identity:
    """A certificate over `key`; without an issuer it signs itself."""
    subject, at = _name(name, unit), datetime.fromtimestamp(now, UTC)
    public = key.public_key()
    signer = by.key if by is not None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by is not None else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - VALID_BEFORE)
        .not_valid_after(at + VALID_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(authority_of(signer), critical=False)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return Identity(key, builder.sign(signer, digest_of(signer)))


def revocations(by: Identity, *, now: float, lifetime: timedelta) -> bytes:
    """An empty CRL as DER, an hour old."""
    at = datetime.fromtimestamp(now, UTC)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(at - timedelta(hours=1))
        .next_update(at + lifetime)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(authority_of(by.key), critical=False)
        .sign(by.key, digest_of(by.key))
    )
    return crl.public_bytes(serialization.Encoding.DER)


def authority_of(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def digest_of(key: ec.EllipticCurvePrivateKey) -> hashes.SHA256 | hashes.SHA384:
    return hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA256()


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def sgx_extension(fmspc: bytes, ppid: bytes) -> Extension:
    """A sequence of pairs of an identifier and a value, in the order of Intel's profile."""
    svns = [_pair(f"{SGX_EXTENSION}.2.{n}", _tlv(0x02, b"\0")) for n in range(1, 17)]
    tcb = [
        *svns,
        _pair(f"{SGX_EXTENSION}.2.17", _tlv(0x02, bytes([PCE_SVN]))),
        _pair(f"{SGX_EXTENSION}.2.18", _tlv(0x04, bytes(16))),
    ]
    members = [
        _pair(f"{SGX_EXTENSION}.1", _tlv(0x04, ppid)),
        _pair(f"{SGX_EXTENSION}.2", _tlv(0x30, b"".join(tcb))),
        _pair(f"{SGX_EXTENSION}.3", _tlv(0x04, bytes(2))),
        _pair(f"{SGX_EXTENSION}.4", _tlv(0x04, fmspc)),
        _pair(f"{SGX_EXTENSION}.5", _tlv(0x0A, b"\1")),
    ]
    value = _tlv(0x30, b"".join(members))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_EXTENSION), value), False


def _name(common: str, unit: str) -> x509.Name:
    parts = [
        x509.NameAttribute(NameOID.COMMON_NAME, common),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, SYNTHETIC_ORGANISATION),
    ]
    if unit:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(parts)


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **_NO_OTHER_USAGE
    )


def _pair(identifier: str, value: bytes) -> bytes:
    return _tlv(0x30, _tlv(0x06, _identifier(identifier)) + value)


def _tlv(tag: int, content: bytes) -> bytes:
    """DER: a tag, a length, a value."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _identifier(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    return bytes([40 * first + second]) + b"".join(map(_base_128, rest))


def _base_128(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(0x80 | number & 0x7F)
    return bytes(reversed(digits))
