"""A receipt's document: one call, the verdict on it, and the digests of all the evidence.

Its members and how it is signed are in docs/receipts.md. The evidence travels beside it, each text
under the digest that the signed document names, so that no encoder touches it.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from shared.attestation.evidence import Evidence
from shared.attestation.policy import Policy
from shared.attestation.roots import Roots
from shared.attestation.verdict import Verdict
from shared.ids import dashed
from shared.transcript import Transcript

FORMAT = "ollm-receipt/1"
HASHES = ("client_request", "forwarded_request", "upstream_response", "client_response")
VERIFIER = "dcap-qvl"


def digest_of(text: str) -> str:
    """The name of a piece of evidence; empty for none."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest() if text else ""


def evidence_texts(evidence: Evidence) -> dict[str, str]:
    """Every piece under its digest."""
    pieces = (
        evidence.report, *evidence.collateral.values(),
        evidence.nras, evidence.nras_keys, evidence.signature,
    )  # fmt: skip
    return {digest_of(text): text for text in pieces if text}


def evidence_digests(evidence: Evidence) -> dict[str, Any]:
    """What the signed document says in its place."""
    return {
        "report": digest_of(evidence.report),
        "collateral": {key: digest_of(text) for key, text in evidence.collateral.items()},
        "nras": digest_of(evidence.nras),
        "nras_keys": digest_of(evidence.nras_keys),
        "signature": digest_of(evidence.signature),
    }


def document_of(
    transcript: Transcript,
    verdict: Verdict,
    evidence: Evidence,
    *,
    policy: Policy,
    roots: Roots,
    session_id: str,
    verified_at: float,
    gateway_version: str,
) -> dict[str, Any]:
    """Not yet signed. Times are epoch seconds."""
    document: dict[str, Any] = {
        "format": FORMAT,
        **_identity(transcript),
        "verified_at": verified_at,
        "label": verdict.label,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "factors": msgspec.to_builtins(verdict.factors),
        "policy": {**msgspec.to_builtins(policy), "attestation": transcript.attestation},
        "complete": transcript.complete,
        "cause": transcript.cause,
        "hashes": {name: _digest(transcript, name) for name in HASHES},
        "reserialised_response": transcript.reserialised_response,
        "nonce": evidence.nonce,
        "reported_at": evidence.reported_at,
        "evidence": evidence_digests(evidence),
        "session_id": dashed(session_id) if session_id else "",
        "let_out_under": [dashed(one) for one in transcript.sessions],
        "tls": {"host": transcript.tls_host, "spki": transcript.tls_spki},
        "roots": {"name": roots.name, "sha256": roots.digest, "synthetic": roots.synthetic},
        "software": {"gateway": gateway_version, "dcap_qvl": importlib.metadata.version(VERIFIER)},
    }
    if transcript.zdr is not None:
        document["zdr"] = {"note": "contract, not proof", **structs.asdict(transcript.zdr)}
    return document


def _identity(transcript: Transcript) -> dict[str, Any]:
    return {
        "receipt_id": dashed(transcript.receipt_id),
        "request_id": dashed(transcript.request_id),
        "kind": transcript.receipt_kind,
        "provider": transcript.provider,
        "provider_type": transcript.provider_type,
        "model": transcript.model,
        "upstream_model": transcript.upstream_model,
        "upstream_id": transcript.upstream_id,
        "endpoint": transcript.endpoint,
        "tier": transcript.tier,
        "stream": transcript.streamed,
        "started_at": transcript.started_at,
        "ended_at": transcript.ended_at,
    }


def _digest(transcript: Transcript, name: str) -> Mapping[str, object]:
    digest = getattr(transcript, name)
    return {"sha256": digest.sha256, "size": digest.size}
