"""Receipts as files: what the gateway exports about a call, signed and logged by a key of ours."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shared.attestation import receipt
from shared.attestation.factor import Factor
from shared.attestation.log_proof import log_proof
from shared.attestation.merkle import CompactRange, Place, inclusion_spans, leaf_hash, proof_of
from shared.attestation.policy import Policy
from shared.attestation.signing import ReceiptKey, canonical
from shared.attestation.verdict import Verdict
from shared.attestation.verify import verify
from tests.minted import Minted

DEFAULT = Policy()
KEY = ReceiptKey(b"\x05" * 32)
Json = dict[str, Any]


def verdict_of(minted: Minted, policy: Policy = DEFAULT, history: Iterable[Factor] = ()) -> Verdict:
    return verify(
        minted.transcript, minted.evidence,
        policy=policy, roots=minted.roots, now=minted.now, is_over=True, history=history,
    )  # fmt: skip


def document_of(minted: Minted, verdict: Verdict, policy: Policy = DEFAULT, **changes: Any) -> Json:
    """Not signed."""
    document = receipt.document_of(
        minted.transcript, verdict, minted.evidence,
        policy=policy, roots=minted.roots, session_id="", verified_at=minted.now,
        gateway_version="0.1.0",
    )  # fmt: skip
    return {**document, **changes}


def signed(document: Mapping[str, Any], key: ReceiptKey = KEY) -> Json:
    found: Json = json.loads(key.sign_document(document))
    return found


def export_of(
    document: Mapping[str, Any],
    texts: Mapping[str, str],
    *,
    log: object = None,
) -> bytes:
    return json.dumps({"receipt": document, "evidence": texts, "log": log}).encode()


def log_of(document: Mapping[str, Any], *, among: int = 7, key: ReceiptKey = KEY) -> Json:
    """In a log of some other receipts, at the fourth place from its end."""
    leaf, tree = leaf_hash(canonical(document)), CompactRange()
    leaves = [leaf_hash(b"%d" % number) for number in range(among)]
    index = max(0, among - 4)
    leaves[index] = leaf
    nodes: dict[Place, bytes] = {}
    for one in leaves:
        nodes.update(tree.append(one))
    head = key.sign_head(tree.size, tree.root(), 1_790_000_100.0)
    path = proof_of(inclusion_spans(index, among), nodes)
    found: Json = msgspec.to_builtins(log_proof(index, leaf, path, head, key.public_key))
    return found
