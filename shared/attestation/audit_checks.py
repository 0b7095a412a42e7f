"""The checks of an audit: of the file, and of what it says beside what its evidence bears."""

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

from shared.attestation.export import Document, Export
from shared.attestation.factor import DECIDING, NAMES, OF_A_MESSAGE, Factor
from shared.attestation.log_proof import verify_log_proof
from shared.attestation.merkle import leaf_hash
from shared.attestation.signing import SIGNATURE, canonical, verify_document
from shared.attestation.terms import Terms
from shared.attestation.verdict import Verdict


class Check(msgspec.Struct, frozen=True):
    """Of the file. `skip`: there is nothing to check."""

    name: str
    status: Literal["pass", "fail", "skip"]
    detail: str


MOST_GATHERING_SECONDS = 300.0
"""Between a report and its verification: collateral and tokens are fetched meanwhile."""
MOST_LATE_SECONDS = 86_400.0
"""Between a call's end and the report that was made for it, at the longest deadline there is."""


# ---- the file


def check_evidence(found: Export) -> Check:
    if found.mistaken:
        why = f"{len(found.mistaken)} of {len(found.texts)} texts are not what they are named by"
        return Check("evidence", "fail", why)
    if found.missing:
        why = f"{len(found.missing)} of the texts that the receipt names are not in the file"
        return Check("evidence", "fail", why)
    if not found.texts:
        return Check("evidence", "skip", "the receipt names none")
    return Check("evidence", "pass", f"{len(found.texts)} texts have the digests that are signed")


def check_signature(found: Export, known: Collection[str]) -> Check:
    key = _public_key(found)
    if not key:
        return Check("gateway_signature", "fail", "the gateway has not signed it")
    if known and key.hex() not in known:
        return Check("gateway_signature", "fail", "it is signed with another key than the given")
    if not verify_document(found.signed, key):
        return Check("gateway_signature", "fail", "the signature is not over this document")
    whose = "the given key" if known else f"key {key.hex()}, which the file itself names"
    return Check("gateway_signature", "pass", f"by {whose}")


def check_times(found: Export) -> Check:
    """Those that the gateway tells are held against each other: evidence outlives what it proves."""
    document, log = found.document, found.log
    if not document.evidence.report:
        return Check("times", "skip", "there is no report")
    gathering = document.verified_at - document.reported_at
    if not 0 <= gathering <= MOST_GATHERING_SECONDS:
        return Check("times", "fail", "it was not verified when its report was made")
    if document.reported_at > document.ended_at + MOST_LATE_SECONDS:
        return Check("times", "fail", "its report was made long after the call")
    if log is not None and log.head.timestamp / 1000 < document.verified_at:
        return Check("times", "fail", "the log is older than the receipt")
    return Check("times", "pass", "call, report, verification and log follow one another")


def _public_key(found: Export) -> bytes:
    stamp = found.signed.get(SIGNATURE)
    told = stamp.get("public_key") if isinstance(stamp, dict) else None
    try:
        return bytes.fromhex(told) if isinstance(told, str) else b""
    except ValueError:
        return b""


def check_log(found: Export, terms: Terms) -> Check:
    if found.log is None:
        status: Literal["fail", "skip"] = "fail" if terms.require_log else "skip"
        return Check("log", status, "the file has no proof from the log")
    if terms.gateway_keys and found.log.public_key not in terms.gateway_keys:
        return Check("log", "fail", "its head is signed with another key than the given")
    fault = verify_log_proof(found.log, leaf_hash(canonical(found.signed)))
    if fault:
        return Check("log", "fail", fault)
    size = found.log.head.tree_size
    return Check(
        "log", "pass", f"leaf {found.log.leaf_index} of the first {size}, under a signed head"
    )


# ---- what it says


def check_factors(document: Document, verdict: Verdict) -> Check:
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


def check_label(document: Document, verdict: Verdict) -> Check:
    theirs, ours = (document.label, document.reason), (verdict.label, verdict.reason)
    if theirs != ours:
        named = [f"{label} ({reason})" if reason else label for label, reason in (theirs, ours)]
        return Check("label", "fail", f"the receipt says {named[0]}, its evidence {named[1]}")
    return Check("label", "pass", f"{verdict.label}, as the receipt says")


def check_policy(document: Document, terms: Terms) -> Check:
    """What the gateway has chosen to accept. It judges no policy record, and a refusal is no laxer."""
    if document.kind != "tee":
        return Check("policy", "skip", "nothing is proven by it")
    laxer = ", ".join(terms.laxer(document.policy))
    if not laxer:
        return Check("policy", "pass", "no choice of the gateway's is laxer than the default")
    if terms.accept_policy:
        return Check("policy", "pass", f"laxer than the default, and accepted: {laxer}")
    return Check("policy", "fail", f"the gateway's is laxer than the default: {laxer}")
