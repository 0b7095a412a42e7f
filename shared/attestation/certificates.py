"""Certificate chains as GPUs send them: leaf first, root last, and none of it believed before."""

import hashlib
import warnings
from functools import lru_cache
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

MAX_LENGTH = 10
"""A chain has five certificates on Hopper; each more is a signature to check."""
_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion,
    x509.DuplicateExtension, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType,
)  # fmt: skip

Chain = tuple[x509.Certificate, ...]


def read_chain(pem: bytes) -> Chain | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # odd serial numbers
            chain = tuple(x509.load_pem_x509_certificates(pem))
    except _UNREADABLE:
        return None
    return chain if 1 < len(chain) <= MAX_LENGTH else None


def leads_to(root_sha256: str, chain: Chain) -> bool:
    """Whether each is issued by the next, all issuers are CAs, and the last is the root."""
    root = hashlib.sha256(chain[-1].public_bytes(Encoding.DER)).hexdigest()
    return root == root_sha256 and all(_issued(one, by) for one, by in pairwise(chain))


def p384_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey | None:
    try:
        key = certificate.public_key()
    except _UNREADABLE:
        return None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    return None


def key_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes:
    """One that is not standard, as DER; empty where it has none."""
    try:
        found = certificate.extensions.get_extension_for_oid(oid).value
    except _UNREADABLE:
        return b""
    return found.value if isinstance(found, x509.UnrecognizedExtension) else b""


@lru_cache(maxsize=1024)
def _issued(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
        return by.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE:
        return False
