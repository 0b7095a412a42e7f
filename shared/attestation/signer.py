"""A signer: whose signature some bytes carry. Wrong signatures are answers here, not errors."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from eth_hash.auto import keccak
from eth_keys.datatypes import PublicKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

ADDRESS_SIZE = 20
KEY_SIZE = 32
"""Of ed25519."""
_RECOVERABLE_SIZE = 65
_NOT_SIGNED = (BadSignature, ValidationError, ValueError)


def is_signed_by(key: bytes, message: bytes, signature: bytes) -> bool:
    """By an ed25519 key."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def address_of(text: str, signature: bytes) -> bytes:
    """Who signed a text as Ethereum's wallets do (EIP-191); empty where nobody did."""
    message = text.encode()
    head = b"\x19Ethereum Signed Message:\n%d" % len(message)
    key = _recover(keccak(head + message), signature)
    return b"" if key is None else key.to_canonical_address()


def is_recovered(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a secp256k1 key signed the SHA-256 of a message. The key: of 33, 64 or 65 bytes."""
    found = _recover(hashlib.sha256(message).digest(), signature)
    if found is None or not key:
        return False
    point = found.to_bytes()
    return key in (found.to_compressed_bytes(), point, b"\x04" + point)


def _recover(digest: bytes, signature: bytes) -> PublicKey | None:
    """From r, s and v, where v is 27 or 28, or 0 or 1."""
    if len(signature) != _RECOVERABLE_SIZE:
        return None
    v = signature[-1] - 27 if signature[-1] >= 27 else signature[-1]
    if v not in (0, 1):
        return None
    try:
        signed = Signature(signature_bytes=signature[:-1] + bytes([v]))
        return signed.recover_public_key_from_msg_hash(digest)
    except _NOT_SIGNED:
        return None
