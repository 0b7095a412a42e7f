"""Receipts as files: what the gateway exports about a call, signed and logged by a key of ours."""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shared.attestation.evidence import Evidence
from shared.attestation.export import name_of
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
HASHES = ("client_request", "forwarded_request", "upstream_response", "client_response")


def verdict_of(minted: Minted, policy: Policy = DEFAULT, history: Iterable[Factor] = ()) -> Verdict:
    return verify(
        minted.transcript, minted.evidence,
        policy=policy, roots=minted.roots, now=minted.now, is_over=True, history=history,
    )  # fmt: skip


def document_of(minted: Minted, verdict: Verdict, policy: Policy = DEFAULT, **changes: Any) -> Json:
    """Not signed. Its members are those of docs/receipts.md."""
    call, evidence, roots = minted.transcript, minted.evidence, minted.roots
    return {
        "format": "ollm-receipt/1",
        "receipt_id": str(uuid.UUID(call.receipt_id)),
        "request_id": str(uuid.UUID(call.request_id)),
        "kind": "tee",
        "provider": call.provider,
        "provider_type": call.provider_type,
        "model": call.model,
        "upstream_model": call.upstream_model,
        "upstream_id": call.upstream_id,
        "endpoint": call.endpoint,
        "tier": call.tier,
        "stream": call.streamed,
        "started_at": call.started_at,
        "ended_at": call.ended_at,
        "verified_at": minted.now,
        "label": verdict.label,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "factors": msgspec.to_builtins(verdict.factors),
        "policy": {**msgspec.to_builtins(policy), "attestation": call.attestation},
        "complete": call.complete,
        "cause": call.cause,
        "hashes": {
            name: {"sha256": getattr(call, name).sha256, "size": getattr(call, name).size}
            for name in HASHES
        },
        "reserialised_response": call.reserialised_response,
        "nonce": evidence.nonce,
        "reported_at": evidence.reported_at,
        "evidence": _digests(evidence),
        "session_id": "",
        "tls": {"host": call.tls_host, "spki": call.tls_spki},
        "roots": {"name": roots.name, "sha256": roots.digest, "synthetic": roots.synthetic},
        "software": {"gateway": "0.1.0", "dcap_qvl": "0.7.0"},
        **changes,
    }


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


def texts_of(evidence: Evidence) -> dict[str, str]:
    texts = (
        evidence.report, *evidence.collateral.values(), evidence.nras, evidence.nras_keys,
        evidence.signature,
    )  # fmt: skip
    return {name_of(one): one for one in texts if one}


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


def _digests(evidence: Evidence) -> Json:
    def name(text: str) -> str:
        return name_of(text) if text else ""

    return {
        "report": name(evidence.report),
        "collateral": {key: name(text) for key, text in evidence.collateral.items()},
        "nras": name(evidence.nras),
        "nras_keys": name(evidence.nras_keys),
        "signature": name(evidence.signature),
    }
