"""What `gateway receipts verify` prints: an audit in lines, the last of which says what it comes to."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from api.cli.store import table
from shared.attestation.audit import Audit, Link
from shared.attestation.export import Kind
from shared.attestation.factor import Factor
from shared.attestation.policy import Policy

_LINKS: dict[Link, str] = {
    "bytes": "the client's own bytes are what is signed",
    "word": "other bytes than the client's are signed: for the step between them, the gateway's word",
    "open": "not all of the bytes were hashed",
}


def scorecard(found: Audit, kind: Kind) -> Iterator[str]:
    """One line for each factor and each check of the file, then what it comes to."""
    yield f"receipt   {found.receipt_id}"
    yield f"request   {found.request_id}"
    yield f"model     {found.model} as {found.upstream_model}, by {found.provider}"
    yield f"judged    {_time(found.verified_at)}, roots {found.roots}"
    if found.kind != "zdr":
        yield from _policies(found)
    yield ""
    yield from _factors(found.verdict.factors)
    yield ""
    rows = [(check.status, check.name, check.detail) for check in found.checks]
    yield from table(("status", "of the file", "detail"), rows)
    yield ""
    if found.kind != "zdr":
        yield f"request:  {_LINKS[found.request_link]}."
        yield f"answer:   {_LINKS[found.response_link]}."
    yield from found.notes
    yield conclusion(found, kind)


def conclusion(found: Audit, kind: Kind) -> str:
    """An exit code says nothing beyond this line."""
    if found.kind != kind:
        return (
            f"NOT VERIFIED: this is a receipt of kind {found.kind}; --kind {found.kind} takes it."
        )
    missing = "; ".join(found.not_shown)
    if found.holds(kind):
        loud = "SYNTHETIC, NO PROOF: " if found.synthetic else ""
        laxer = f" by a policy laxer than the default ({', '.join(found.laxer)})"
        told = f"{loud}{_told(found)}{laxer if found.laxer else ''}; all of it comes out again."
        return f"{told} NOT SHOWN: {missing}." if missing else told
    wrong = [f"{one.name} ({one.detail})" for one in found.checks if one.status == "fail"]
    if wrong:
        return f"NOT VERIFIED: {_come_out(found)}what fails is {'; '.join(wrong)}."
    if kind != "tee" and missing:
        return f"NOT VERIFIED: it is the gateway's word alone, and not shown: {missing}."
    return f"NOT VERIFIED: {_told(found)}."


def _come_out(found: Audit) -> str:
    """A label is told only where it does not sound like the whole."""
    if found.verdict.label == "verified":
        return "the machine's evidence holds, but not the rest; "
    return "" if found.verdict.label == "n/a" else f"{_told(found)}; "


def _told(found: Audit) -> str:
    label, detail = found.verdict.label, found.verdict.detail
    return f"{label} ({detail})" if detail else label


def _policies(found: Audit) -> Iterator[str]:
    if found.policy == found.stored_policy:
        yield f"policy    the gateway's: {_policy(found.policy)}"
        return
    yield f"policy    yours: {_policy(found.policy)}"
    yield f"          the gateway's: {_policy(found.stored_policy)}"


def _policy(policy: Policy) -> str:
    return "; ".join(
        (
            f"TCB {_listed(policy.allowed_tcb)}",
            f"not needed: {_listed(policy.demoted)}",
            f"reports of {policy.report_seconds:g} s",
            "with GPUs" if policy.has_gpu else "without GPUs",
            f"known composes: {_listed(policy.compose_hashes)}",
            f"known images: {_listed(policy.os_images)}",
        )
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _factors(factors: Iterable[Factor]) -> list[str]:
    rows = [(one.status, one.name, one.source, one.detail) for one in factors]
    return table(("status", "factor", "source", "detail"), rows) if rows else ["no factors"]


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
