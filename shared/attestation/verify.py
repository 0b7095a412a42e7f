"""Verifies a call: everything that was obtained about it, judged at one time, by rule."""

from collections.abc import Iterable

from shared.attestation.evidence import Evidence
from shared.attestation.factor import DECIDING, OF_A_MESSAGE, Factor, failed, passed
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
            *check_message(transcript, signature, session, policy=policy),
            *history,
        ],
        gateway_scope=is_gateway_scope(signature, session),
        demoted=policy.demoted,
        complete=transcript.complete,
        cause=transcript.cause,
        is_over=is_over,
    )


TLS_KEY_NOT_ATTESTED = "tls_key_not_attested"
"""The cause of a refusal: the session verified, and attests none of the host's, or another than the
peer's."""


def conclude_refusal(factors: Iterable[Factor], *, policy: Policy, cause: str) -> Verdict:
    """The verdict on a machine that a prompt was not sent to. There is no message to judge."""
    found = list(factors)
    if cause == TLS_KEY_NOT_ATTESTED:
        found.append(
            failed("tls_pinned", "tls", "the attested TLS key is not the peer's, or none is")
        )
    return judge(
        found,
        gateway_scope=False,
        demoted=policy.demoted,
        needed=[name for name in DECIDING if name not in OF_A_MESSAGE],
        is_over=True,
    )


def _fresh(factor: Factor, transcript: Transcript, session: Session, policy: Policy) -> Factor:
    """Of this call: a session serves many, and was examined for the first of them."""
    if factor.name != "report_nonce" or factor.status != "pass":
        return factor
    age = transcript.started_at - session.reported_at
    if age > policy.report_seconds:
        told = f"the report was {age:.0f} s old when the call began"
        return failed("report_nonce", "report", told)
    told = (
        f"{age:.0f} s old when the call began" if age > 0 else f"made {-age:.0f} s after it began"
    )
    return passed("report_nonce", factor.source, told)
