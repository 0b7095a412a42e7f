"""One attested machine: its quote, what the quote binds, and the software that the log tells of."""

import msgspec

from shared.attestation import quote as quotes
from shared.attestation.compose import Software, check_software
from shared.attestation.event_log import Replay, check_replay, replay
from shared.attestation.evidence import Evidence
from shared.attestation.factor import FRESH_AND_GENUINE, Factor, failed, passed, unknown
from shared.attestation.policy import Policy
from shared.attestation.report import Attestation, Shape
from shared.attestation.report_data import HALF, Binding, chutes_form, read_binding
from shared.attestation.roots import Roots

UNVERIFIED = "the quote was not verified"
RESOLD: tuple[Shape, ...] = ("chutes", "tinfoil")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is examined by."""

    shape: Shape
    evidence: Evidence
    policy: Policy
    roots: Roots
    now: float
    began_at: float
    """When the call under this report began."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    factors: tuple[Factor, ...]
    """OF_A_MACHINE."""
    attestation: Attestation
    binding: Binding
    checked: quotes.Checked
    software: Software

    def summary(self) -> Factor:
        """gateway_attested: the worst of what a gateway is asked for."""
        told = [one for one in self.factors if one.name in FRESH_AND_GENUINE]
        for make, status in ((failed, "fail"), (unknown, "unknown")):
            for one in told:
                if one.status == status:
                    return make("gateway_attested", "quote", f"{one.name}: {one.detail}")
        return passed("gateway_attested", "quote", "its own quote passes the same checks")


def check_machine(attestation: Attestation, question: Question) -> Machine:
    evidence, policy, roots = question.evidence, question.policy, question.roots
    checked = quotes.check(
        attestation.quote, evidence.collateral, policy=policy, roots=roots, now=question.now
    )
    quote, log = checked.quote, _log(attestation)
    binding = read_binding(quote.report_data if quote else b"", attestation, evidence.nonce)
    replayed = _replayed(log, checked)
    is_replayed = replayed.status == "pass"
    software = check_software(
        attestation, question.shape, quote, log, is_replayed=is_replayed, policy=policy
    )
    factors = (
        *checked.factors,
        _nonce(checked, binding, question),
        _signer(checked, binding, attestation, question.shape),
        replayed, *software.factors,
    )  # fmt: skip
    return Machine(
        factors=factors, attestation=attestation, binding=binding, checked=checked,
        software=software,
    )  # fmt: skip


def _log(attestation: Attestation) -> Replay | None:
    return None if attestation.event_log is None else replay(attestation.event_log)


def _replayed(log: Replay | None, checked: quotes.Checked) -> Factor:
    if checked.quote is None:
        return unknown("rtmr_replay", "event_log", "there is no quote to compare with")
    return check_replay(log, checked.quote.rtmrs, is_verified=checked.is_verified)


def _nonce(checked: quotes.Checked, binding: Binding, question: Question) -> Factor:
    if question.shape in RESOLD:
        told = "the nonce is not ours: nothing shows that the report is fresh"
        return failed("report_nonce", "quote", told)
    if checked.quote is None:
        return unknown("report_nonce", "quote", "there is no quote to read it from")
    if not binding.nonce:
        return failed("report_nonce", "quote", "the report data does not hold our nonce")
    reported_at = question.evidence.reported_at
    if reported_at <= 0:
        return unknown("report_nonce", "report", "it is not known when the report came")
    age = max(0.0, question.began_at - reported_at)
    told = f"{age:.0f} s old when the call began"
    if age > question.policy.report_seconds:
        return failed("report_nonce", "report", told)
    if not checked.is_verified:
        return unknown("report_nonce", "quote", UNVERIFIED)
    return passed("report_nonce", "quote", told)


def _signer(
    checked: quotes.Checked, binding: Binding, attestation: Attestation, shape: Shape
) -> Factor:
    if shape in RESOLD:
        return failed("signer_bound", "quote", _resold(checked, attestation, shape))
    if checked.quote is None:
        return unknown("signer_bound", "quote", "there is no quote to read it from")
    if not binding.identity:
        told = "the report data does not hold the signer that the report names"
        return failed("signer_bound", "quote", told)
    if binding.identity == "keyset" and not attestation.receipt_keys:
        return failed("signer_bound", "report", "the attested keyset holds no receipt key")
    if not checked.is_verified:
        return unknown("signer_bound", "quote", UNVERIFIED)
    return passed("signer_bound", "quote", _bound(binding, attestation))


def _bound(binding: Binding, attestation: Attestation) -> str:
    if binding.identity == "keyset":
        return f"a keyset with receipt keys {', '.join(sorted(attestation.receipt_keys))}"
    return attestation.signer + (" and the TLS key" if binding.tls else "")


def _resold(checked: quotes.Checked, attestation: Attestation, shape: Shape) -> str:
    """Neither signs messages, whatever else their quotes hold."""
    told = "the machine signs no messages"
    if shape != "chutes" or checked.quote is None:
        return told
    theirs = chutes_form(attestation.server_nonce, attestation.encryption_key)
    is_theirs = checked.quote.report_data[:HALF] == theirs
    holds = "holds" if is_theirs else "does not hold"
    return f"{told}; its report data {holds} its encryption key"
