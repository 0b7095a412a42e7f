"""An audit: a receipt judged again from its file alone, by roots of the auditor's own."""

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

from shared.attestation.export import Document, Export, Hash, Kind, read_export
from shared.attestation.factor import BY_WORD, DECIDING, NAMES, OF_A_MESSAGE, Factor
from shared.attestation.log_proof import verify_log_proof
from shared.attestation.merkle import leaf_hash
from shared.attestation.policy import Policy
from shared.attestation.roots import Roots
from shared.attestation.session import examine
from shared.attestation.signing import SIGNATURE, canonical, verify_document
from shared.attestation.verdict import Verdict
from shared.attestation.verify import conclude_refusal, verify

Link = Literal["bytes", "word", "open"]


class Check(msgspec.Struct, frozen=True):
    """Of the file. `skip`: there is nothing to check."""

    name: str
    status: Literal["pass", "fail", "skip"]
    detail: str


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    receipt_id: str
    request_id: str
    kind: Kind
    provider: str
    model: str
    upstream_model: str
    verified_at: float
    """The time it was judged at again, in epoch seconds."""
    roots: str
    synthetic: bool
    """Whether its roots, or ours, prove nothing."""
    verdict: Verdict
    """Ours."""
    stored: Verdict
    """The receipt's."""
    checks: tuple[Check, ...]
    request_link: Link
    """Between the client's bytes and those that are signed: equal, or the gateway's word."""
    response_link: Link
    notes: tuple[str, ...]

    def holds(self, kind: Kind = "tee") -> bool:
        """Whether it is all that a receipt of this kind can be."""
        if self.kind != kind or any(check.status == "fail" for check in self.checks):
            return False
        if kind == "refusal":
            return True
        return self.verdict.label == ("verified" if kind == "tee" else "n/a")


def audit(export: bytes, *, roots: Roots, now: float | None, gateway_key: str | None) -> Audit:
    """`gateway_key`: the hex of the keys that the auditor knows as the gateway's, with commas.

    Raises NotAReceipt.
    """
    found = read_export(export)
    document = found.document
    at = document.verified_at if now is None else now
    verdict = _again(found, roots, at)
    known = {one.strip().lower() for one in (gateway_key or "").split(",") if one.strip()}
    return Audit(
        receipt_id=document.receipt_id,
        request_id=document.request_id,
        kind=document.kind,
        provider=document.provider,
        model=document.model,
        upstream_model=document.upstream_model,
        verified_at=at,
        roots=roots.name,
        synthetic=roots.synthetic or document.roots.synthetic,
        verdict=verdict,
        stored=Verdict(document.label, document.reason, document.detail, document.factors),
        checks=(
            _evidence(found),
            _signature(found, known),
            _log(found, known),
            _factors(document, verdict),
            _label(document, verdict),
        ),
        request_link=_link(document.hashes.client_request, document.hashes.forwarded_request),
        response_link=_link(document.hashes.client_response, document.hashes.upstream_response),
        notes=tuple(_notes(found, roots, known)),
    )


def _again(found: Export, roots: Roots, at: float) -> Verdict:
    document = found.document
    told = [factor for factor in document.factors if factor.name in BY_WORD]
    if document.kind == "zdr":
        return Verdict("n/a")
    if document.kind == "refusal":
        session = examine(
            found.evidence(), signer="", upstream_model=document.upstream_model,
            policy=document.policy, roots=roots, now=at, began_at=document.started_at,
        )  # fmt: skip
        return conclude_refusal(
            (*session.factors, *told), policy=document.policy, cause=document.cause
        )
    return verify(
        found.transcript(), found.evidence(),
        policy=document.policy, roots=roots, now=at, is_over=True, history=told,
    )  # fmt: skip


# ---- the file


def _evidence(found: Export) -> Check:
    if found.mistaken:
        why = f"{len(found.mistaken)} of {len(found.texts)} texts are not what they are named by"
        return Check("evidence", "fail", why)
    if found.missing:
        why = f"{len(found.missing)} of the texts that the receipt names are not in the file"
        return Check("evidence", "fail", why)
    if not found.texts:
        return Check("evidence", "skip", "the receipt names none")
    return Check("evidence", "pass", f"{len(found.texts)} texts have the digests that are signed")


def _signature(found: Export, known: Collection[str]) -> Check:
    key = _public_key(found)
    if not key:
        return Check("gateway_signature", "fail", "the gateway has not signed it")
    if known and key.hex() not in known:
        return Check("gateway_signature", "fail", "it is signed with another key than the given")
    if not verify_document(found.signed, key):
        return Check("gateway_signature", "fail", "the signature is not over this document")
    whose = "the given key" if known else f"key {key.hex()}, which the file itself names"
    return Check("gateway_signature", "pass", f"by {whose}")


def _public_key(found: Export) -> bytes:
    stamp = found.signed.get(SIGNATURE)
    told = stamp.get("public_key") if isinstance(stamp, dict) else None
    try:
        return bytes.fromhex(told) if isinstance(told, str) else b""
    except ValueError:
        return b""


def _log(found: Export, known: Collection[str]) -> Check:
    if found.log is None:
        return Check("log", "skip", "the file has no proof from the log")
    if known and found.log.public_key not in known:
        return Check("log", "fail", "its head is signed with another key than the given")
    fault = verify_log_proof(found.log, leaf_hash(canonical(found.signed)))
    if fault:
        return Check("log", "fail", fault)
    size = found.log.head.tree_size
    return Check(
        "log", "pass", f"leaf {found.log.leaf_index} of the first {size}, under a signed head"
    )


# ---- what it says


def _factors(document: Document, verdict: Verdict) -> Check:
    """One that decides and is not told counts as open."""
    if not document.factors:
        return Check("factors", "skip", "the receipt tells none")
    ours, theirs = _statuses(verdict.factors), _statuses(document.factors)
    compared = [
        name
        for name in NAMES
        if (name in DECIDING or name in theirs)
        and not (document.kind == "refusal" and name in OF_A_MESSAGE)
    ]
    other = [
        f"{name} ({theirs.get(name, 'unknown')}, here {ours.get(name, 'unknown')})"
        for name in compared
        if ours.get(name, "unknown") != theirs.get(name, "unknown")
    ]
    if other:
        return Check("factors", "fail", "they come out otherwise: " + ", ".join(other))
    return Check("factors", "pass", "all come out as the receipt has them")


def _statuses(factors: Iterable[Factor]) -> dict[str, str]:
    return {factor.name: factor.status for factor in factors}


def _label(document: Document, verdict: Verdict) -> Check:
    theirs, ours = (document.label, document.reason), (verdict.label, verdict.reason)
    if theirs != ours:
        named = [f"{label} ({reason})" if reason else label for label, reason in (theirs, ours)]
        return Check("label", "fail", f"the receipt says {named[0]}, its evidence {named[1]}")
    return Check("label", "pass", f"{verdict.label}, as the receipt says")


def _link(client: Hash, signed: Hash) -> Link:
    if not client.sha256 or not signed.sha256:
        return "open"
    return "bytes" if client == signed else "word"


def _notes(found: Export, roots: Roots, known: Collection[str]) -> Iterable[str]:
    document = found.document
    if roots.synthetic or document.roots.synthetic:
        yield "SYNTHETIC: test roots stand under this receipt. It proves nothing."
    if document.kind == "zdr":
        yield "Contract, not proof: what the provider was asked for, and what it said of itself."
    if _is_wider(document.policy):
        yield (
            f"The gateway's policy is wider than the default: TCB {document.policy.allowed_tcb},"
            f" not deciding {document.policy.demoted}, reports of {document.policy.report_seconds} s."
        )
    if document.kind == "tee" and not document.policy.has_gpu:
        yield "The gateway's policy says that the model needs no GPU: none was looked for."
    if document.evidence.nras_keys:
        yield "NVIDIA's token keys are those that the gateway kept: their own root is not public."
    if not known:
        yield "Whose key signed the receipt was not asked for: give the gateway's key to know."


def _is_wider(policy: Policy) -> bool:
    default = Policy()
    return (
        bool(policy.demoted)
        or not set(policy.allowed_tcb) <= set(default.allowed_tcb)
        or policy.report_seconds > default.report_seconds
    )
