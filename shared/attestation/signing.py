"""Signs receipts and heads of the log with the gateway's own Ed25519 key, and checks such signatures.

What is signed is always the RFC 8785 form of a JSON object. The objects cannot be taken for each
other: a receipt has a `format`, an ACI receipt an `api_version`, a head neither of them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.seal import Seal

ALGORITHM = "ed25519"
SEED_BYTES = 32
SIGNATURE = "gateway_signature"


class TreeHead(msgspec.Struct, frozen=True, kw_only=True):
    """How the log stood at a time. Bytes are lowercase hex."""

    tree_size: int
    root_hash: str
    timestamp: int
    """Epoch milliseconds."""
    key_id: str
    signature: str


class ReceiptKey:
    """The gateway's private key for receipts."""

    def __init__(self, seed: bytes) -> None:
        """Raises ValueError for anything but 32 bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def sign(self, document: Any) -> str:
        """Over the RFC 8785 form, as hex. Raises ValueError for what has none."""
        return self._key.sign(canonical(document)).hex()

    def sign_document(self, document: Mapping[str, Any]) -> bytes:
        """The document with its signature, in the form that is kept, hashed and given out.

        Raises ValueError for what has no RFC 8785 form.
        """
        stamp = {
            "alg": ALGORITHM,
            "key_id": self.key_id,
            "public_key": self.public_key.hex(),
        }
        value = self.sign({**document, SIGNATURE: stamp})
        return canonical({**document, SIGNATURE: {**stamp, "value": value}})

    def sign_head(self, size: int, root: bytes, at: float) -> TreeHead:
        """`at` is in epoch seconds."""
        told = _head(size, root.hex(), int(at * 1000))
        return TreeHead(**told, key_id=self.key_id, signature=self.sign(told))


def receipt_key(seeds: Sequence[bytes], seal_keys: Sequence[bytes]) -> ReceiptKey:
    """The key in use: the first of its own; without one, what is derived from the first seal key."""
    return ReceiptKey(seeds[0] if seeds else Seal(seal_keys).key_for(b"receipts"))


def key_id_of(public_key: bytes) -> str:
    """How a key is named: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def canonical(document: Any) -> bytes:
    """The RFC 8785 form. Raises ValueError for what has none: NaN, huge integers, half characters."""
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise ValueError(f"no canonical JSON: {error}") from error


def verify_signature(document: Any, signature: str, public_key: bytes) -> bool:
    """Whether a hex signature is this key's over the document's RFC 8785 form. It never raises."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(bytes.fromhex(signature), canonical(document))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def verify_document(document: Any, public_key: bytes) -> bool:
    """Whether a receipt is signed by this key, and says so. It never raises."""
    stamp = document.get(SIGNATURE) if isinstance(document, dict) else None
    if not isinstance(stamp, dict) or not _names(stamp, public_key):
        return False
    rest = {name: value for name, value in stamp.items() if name != "value"}
    return verify_signature({**document, SIGNATURE: rest}, stamp.get("value", ""), public_key)


def verify_head(head: TreeHead, public_key: bytes) -> bool:
    """Whether a head is signed by this key. It never raises."""
    told = _head(head.tree_size, head.root_hash, head.timestamp)
    return head.key_id == key_id_of(public_key) and verify_signature(
        told, head.signature, public_key
    )


def _names(stamp: Mapping[str, Any], public_key: bytes) -> bool:
    return (stamp.get("alg"), stamp.get("key_id"), stamp.get("public_key")) == (
        ALGORITHM,
        key_id_of(public_key),
        public_key.hex(),
    )


def _head(size: int, root_hash: str, timestamp: int) -> dict[str, Any]:
    return {"tree_size": size, "root_hash": root_hash, "timestamp": timestamp}
