"""Who signs messages: a key on secp256k1, as Ethereum's wallets sign, or one on ed25519."""

import hashlib
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey
from typing_extensions import override

RECOVERY_BASE = 27
"""Added to a signature's last byte, as wallets do it."""


class Signer(Protocol):
    algorithm: str
    address: str
    """As reports show it."""
    public_key: str
    address_bytes: bytes

    def sign(self, text: str) -> str:
        """A signature over a message's text, as providers show it."""
        ...


class EcdsaSigner(Signer):
    algorithm = "ecdsa"

    def __init__(self, seed: bytes) -> None:
        self._key = PrivateKey(seed)
        self.address_bytes = self._key.public_key.to_canonical_address()
        self.address = "0x" + self.address_bytes.hex()
        self.public_key = "04" + self._key.public_key.to_bytes().hex()

    @override
    def sign(self, text: str) -> str:
        """EIP-191, `personal_sign`."""
        message = text.encode()
        signed = b"\x19Ethereum Signed Message:\n%d" % len(message) + message
        return "0x" + self._signed(keccak(signed), base=RECOVERY_BASE).hex()

    def sign_digest(self, data: bytes) -> str:
        """Over the plain SHA-256 of the data, as ACI's second generation signs its receipts."""
        return self._signed(hashlib.sha256(data).digest(), base=0).hex()

    def _signed(self, digest: bytes, *, base: int) -> bytes:
        signature = self._key.sign_msg_hash(digest).to_bytes()
        return signature[:64] + bytes([signature[64] + base])


class Ed25519Signer(Signer):
    algorithm = "ed25519"

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.address_bytes = self._key.public_key().public_bytes_raw()
        self.address = self.public_key = self.address_bytes.hex()

    @override
    def sign(self, text: str) -> str:
        return self._key.sign(text.encode()).hex()

    def sign_bytes(self, data: bytes) -> str:
        return self._key.sign(data).hex()
