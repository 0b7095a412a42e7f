"""A log proof: that a receipt is in the transparency log, for whoever has the gateway's public key."""

from collections.abc import Iterable

import msgspec

from shared.attestation.merkle import verify_inclusion
from shared.attestation.signing import TreeHead, key_id_of, verify_head


class LogProof(msgspec.Struct, frozen=True, kw_only=True):
    """The member `log` of an exported receipt. Bytes are lowercase hex."""

    leaf_index: int
    leaf_hash: str
    inclusion_proof: tuple[str, ...]
    """From the leaf to the root (RFC 6962 §2.1.1)."""
    head: TreeHead
    public_key: str
    """Of the key that signed the head: a claim, until it is compared with one that is trusted."""


def log_proof(
    index: int, leaf: bytes, path: Iterable[bytes], head: TreeHead, public_key: bytes
) -> LogProof:
    return LogProof(
        leaf_index=index,
        leaf_hash=leaf.hex(),
        inclusion_proof=tuple(one.hex() for one in path),
        head=head,
        public_key=public_key.hex(),
    )


def verify_log_proof(proof: LogProof, leaf: bytes) -> str:
    """Why it does not prove that the leaf of this hash is in the log; empty: it does.

    That `public_key` is the gateway's is for the caller to see to. It never raises.
    """
    try:
        key, root = bytes.fromhex(proof.public_key), bytes.fromhex(proof.head.root_hash)
        path = [bytes.fromhex(one) for one in proof.inclusion_proof]
    except ValueError:
        return "not hex"
    if proof.leaf_hash != leaf.hex():
        return "another receipt's leaf"
    if proof.head.key_id != key_id_of(key) or not verify_head(proof.head, key):
        return "the head's signature is invalid"
    if not verify_inclusion(leaf, proof.leaf_index, proof.head.tree_size, path, root):
        return "the leaf is not in the head's tree"
    return ""
