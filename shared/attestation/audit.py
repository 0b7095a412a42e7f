"""An audit: a receipt judged again from its file alone, by roots of the auditor's own."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from shared.attestation.audit_checks import (
    Check,
    check_evidence,
    check_factors,
    check_label,
    check_log,
    check_policy,
    check_signature,
    check_times,
)
from shared.attestation.claim import RESERIALISED
from shared.attestation.export import Export, Hash, Kind, read_export
from shared.attestation.factor import BY_WORD, Factor
from shared.attestation.policy import Policy
from shared.attestation.roots import Roots
from shared.attestation.session import examine
from shared.attestation.terms import Terms
from shared.attestation.verdict import Verdict
from shared.attestation.verify import conclude_refusal, verify

Link = Literal["bytes", "word", "open"]
ANY = Terms()


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
    """Ours, by `policy`."""
    stored: Verdict
    """The receipt's."""
    policy: Policy
    """What it was judged by."""
    stored_policy: Policy
    """The receipt's: the gateway's choice."""
    laxer: tuple[str, ...]
    """In what the gateway's choice goes beyond the default policy."""
    checks: tuple[Check, ...]
    request_link: Link
    """Between the client's bytes and those that are signed: equal, or the gateway's word."""
    response_link: Link
    not_shown: tuple[str, ...]
    """What hardware does not prove, and the file and the auditor's keys do not show either."""
    notes: tuple[str, ...]

    def holds(self, kind: Kind = "tee") -> bool:
        """Whether it is all that a receipt of this kind can be, but for what is not shown.

        The other kinds rest on the gateway's word alone, and so on its key and its log.
        """
        if self.kind != kind or any(check.status == "fail" for check in self.checks):
            return False
        if kind != "tee" and self.not_shown:
            return False
        if kind == "refusal":
            return True
        return self.verdict.label == ("verified" if kind == "tee" else "n/a")


def audit(export: bytes, *, roots: Roots, now: float | None, terms: Terms = ANY) -> Audit:
    """Raises NotAReceipt."""
    found = read_export(export)
    document = found.document
    at = document.verified_at if now is None else now
    # Whether the receipt is true to its own policy is one thing, what the auditor accepts another.
    again, policy = _again(found, document.policy, roots, at), terms.policy(document.policy)
    verdict = again if policy == document.policy else _again(found, policy, roots, at)
    log = check_log(found, terms)
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
        policy=policy,
        stored_policy=document.policy,
        laxer=terms.laxer(document.policy) if document.kind == "tee" else (),
        checks=(
            check_evidence(found),
            check_signature(found, terms.gateway_keys),
            log,
            check_factors(document, again),
            check_label(document, again),
            check_policy(document, terms),
            check_times(found),
        ),
        request_link=_link(
            document.hashes.client_request,
            document.hashes.forwarded_request,
            _factor(again, "request_hash"),
        ),
        response_link=_link(
            document.hashes.client_response,
            document.hashes.upstream_response,
            _factor(again, "response_hash"),
        ),
        not_shown=tuple(_not_shown(log, terms)),
        notes=tuple(_notes(found, roots)),
    )


def _again(found: Export, policy: Policy, roots: Roots, at: float) -> Verdict:
    document = found.document
    told = [factor for factor in document.factors if factor.name in BY_WORD]
    if document.kind == "zdr":
        return Verdict("n/a")
    if document.kind == "refusal":
        session = examine(
            found.evidence(), signer="", upstream_model=document.upstream_model,
            policy=policy, roots=roots, now=at, began_at=document.started_at,
        )  # fmt: skip
        return conclude_refusal((*session.factors, *told), policy=policy, cause=document.cause)
    return verify(
        found.transcript(), found.evidence(),
        policy=policy, roots=roots, now=at, is_over=True, history=told,
    )  # fmt: skip


def _not_shown(log: Check, terms: Terms) -> Iterable[str]:
    """A log under a key that the file names itself is anybody's."""
    if not terms.gateway_keys or log.status == "skip":
        yield "that the gateway's log holds it"
    if not terms.gateway_keys:
        yield "whose key signed it"


def _link(client: Hash, wire: Hash, factor: Factor | None) -> Link:
    """Nothing is linked where nothing was signed. A dump of an answer is the gateway's word for it."""
    if factor is None or factor.status != "pass" or not client.sha256 or not wire.sha256:
        return "open"
    is_raw = not factor.detail.startswith(RESERIALISED)
    return "bytes" if client == wire and is_raw else "word"


def _factor(verdict: Verdict, name: str) -> Factor | None:
    return next((one for one in verdict.factors if one.name == name), None)


def _notes(found: Export, roots: Roots) -> Iterable[str]:
    document = found.document
    if roots.synthetic or document.roots.synthetic:
        yield "SYNTHETIC: test roots stand under this receipt. It proves nothing."
    if document.kind == "zdr":
        yield "Contract, not proof: what the provider was asked for, and what it said of itself."
    if document.evidence.nras_keys:
        yield "NVIDIA's token keys are those that the gateway kept: their own root is not public."
