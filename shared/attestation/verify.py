"""Verifies a call: everything that was obtained about it, judged at one time, by rule."""

from collections.abc import Iterable

from shared.attestation.evidence import Evidence
from shared.attestation.factor import Factor, failed
from shared.attestation.message import check_message, is_gateway_scope, read_signature
from shared.attestation.policy import Policy
from shared.attestation.roots import Roots
from shared.attestation.session import Session, examine
from shared.attestation.verdict import Verdict, judge
from shared.transcript import Transcript


def verify(
    transcript: Transcript,
    evidence: Evidence,
    *,
    policy: Policy,
    roots: Roots,
    now: float,
    is_over: bool,
    history: Iterable[Factor] = (),
) -> Verdict:
    """Of a call on a confidential model. `history`: what somebody else knows of earlier sessions."""
    message = read_signature(evidence.signature)
    session = examine(
        evidence,
        signer=message.signer if message else "",
        upstream_model=transcript.upstream_model,
        policy=policy,
        roots=roots,
        now=now,
        began_at=transcript.started_at,
    )
    return conclude(
        transcript, evidence.signature, session, policy=policy, is_over=is_over, history=history
    )


def conclude(
    transcript: Transcript,
    signature: str,
    session: Session,
    *,
    policy: Policy,
    is_over: bool,
    history: Iterable[Factor] = (),
) -> Verdict:
    """The verdict on one of the calls that a session is the proof of."""
    return judge(
        [
            *(_fresh(one, transcript, session, policy) for one in session.factors),
            *check_message(transcript, signature, session),
            *history,
        ],
        gateway_scope=is_gateway_scope(signature, session),
        demoted=policy.demoted,
        complete=transcript.complete,
        cause=transcript.cause,
        is_over=is_over,
    )


def _fresh(factor: Factor, transcript: Transcript, session: Session, policy: Policy) -> Factor:
    """A session is examined before it is known how long after its report the last call begins."""
    age = transcript.started_at - session.reported_at
    if factor.name != "report_nonce" or factor.status != "pass" or age <= policy.report_seconds:
        return factor
    return failed("report_nonce", "report", f"the report was {age:.0f} s old when the call began")
