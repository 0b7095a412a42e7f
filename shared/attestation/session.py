"""A session: what one attestation report proved of the machines behind it, for the calls under it."""

from collections.abc import Collection, Mapping
from typing import TypeVar

import msgspec

from shared.attestation import quote as quotes
from shared.attestation.choice import Choice, choose
from shared.attestation.evidence import Evidence
from shared.attestation.factor import (
    DECIDING,
    OF_A_MACHINE,
    OF_A_MESSAGE,
    OF_GPUS,
    Factor,
    deciding,
    failed,
    in_order,
    passed,
    skipped,
    unknown,
)
from shared.attestation.forms import digits
from shared.attestation.gpu import check_gpus
from shared.attestation.machine import RESOLD, Machine, Question, check_machine
from shared.attestation.nras import check_nras
from shared.attestation.policy import Policy
from shared.attestation.report import Attestation, Report, Scope, Shape, read_report
from shared.attestation.roots import Roots

_Key = TypeVar("_Key")

NO_GPU = "the model is marked as one that runs without a GPU"
OFFLINE = unknown("image_provenance", "policy", "offline: no registry is asked for it")


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Without its failing and open factors none of it is proven: a verdict comes from the factors."""

    factors: tuple[Factor, ...]
    shape: Shape | None = None
    """None: there was no report that can be read."""
    scope: Scope = "model"
    """Where a message was signed that does not say so itself."""
    is_gateway_signer: bool = False
    """The signer is a gateway's own machine, whatever a message says of itself."""
    signer: str = ""
    """Lowercase hex without `0x`."""
    algorithm: str = ""
    receipt_keys: Mapping[str, tuple[str, str]] = {}
    """Of an ACI keyset that the report data holds: algorithm and public key, by key id."""
    tls_spki: str = ""
    """Attested by the report data; empty where none is, or several."""
    tls_keys: Mapping[str, str] = {}
    """Of an ACI keyset that the report data holds: by domain."""
    compose_hash: str = ""
    os_image_hash: str = ""
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()
    fmspc: str = ""
    gpus: int = 0
    nonce: str = ""
    reported_at: float = 0.0
    synthetic: bool = False

    def tls_spki_for(self, host: str) -> str | None:
        """What the peer's key must be. None: no TLS key is attested; empty: none is for this host."""
        if self.tls_keys:
            return self.tls_keys.get(host, "")
        return self.tls_spki or None


def unproven(session: Session, demoted: Collection[str] = ()) -> tuple[str, ...]:
    """The factors that keep a session from being verified: those that failed, and deciding ones that
    are open. The ones about a message are not among them."""
    by_name = {one.name: one.status for one in session.factors}
    needed = deciding([name for name in DECIDING if name not in OF_A_MESSAGE], demoted)
    return (
        *(name for name, status in by_name.items() if status == "fail"),
        *(name for name in needed if by_name.get(name, "unknown") == "unknown"),
    )


def collateral_needed(report: str, signer: str = "", upstream_model: str = "") -> tuple[str, ...]:
    """The keys (`FMSPC/ca`) of the collateral that the quotes of a signer's machine, and of a gateway in
    between, are verified with. A report may hold many others."""
    found = read_report(report)
    choice = choose(found, digits(signer) or signer, upstream_model) if found else None
    chosen = [choice.attestation if choice else None, found.gateway if found else None]
    parsed = [quotes.parse(one.quote) for one in chosen if one]
    return tuple(dict.fromkeys(one.collateral_key for one in parsed if one and one.collateral_key))


def examine(
    evidence: Evidence,
    *,
    signer: str,
    upstream_model: str,
    policy: Policy,
    roots: Roots,
    now: float,
    began_at: float | None = None,
) -> Session:
    """`signer`: who signed the message; empty: not known yet. `began_at`: when the call under the report
    began, which its age is counted to; None: it is about to."""
    report = read_report(evidence.report)
    if report is None:
        told = (
            "the report is too long, or of no known form"
            if evidence.report
            else "there is no report"
        )
        return _nothing(told, None, evidence, policy, roots)
    question = Question(
        shape=report.shape, evidence=evidence, policy=policy, roots=roots, now=now,
        began_at=now if began_at is None else began_at,
    )  # fmt: skip
    choice = choose(report, digits(signer) or signer, upstream_model)
    if choice is None:
        told = "the report attests no machine that models run in"
        return _nothing(told, report, evidence, policy, roots)
    return _examined(report, choice, question)


def _examined(report: Report, choice: Choice, question: Question) -> Session:
    machine = check_machine(choice.attestation, question)
    gateway = check_machine(report.gateway, question) if report.gateway else None
    gpu_factors, gpus = _gpus(choice.attestation, question)
    signed_by = gateway if choice.is_gateways and gateway else machine
    signer = _signer_of(signed_by, choice)
    end = gateway or machine
    factors = (
        *(one for one in machine.factors if one.name != "signer_bound"),
        _signer(signed_by, choice),
        *gpu_factors,
        _gateway(report, machine, gateway, question.policy),
        OFFLINE,
        _root(question.roots),
    )
    return Session(
        factors=in_order(factors),
        shape=report.shape,
        scope=report.scope,
        is_gateway_signer=choice.is_gateways,
        signer=signer,
        algorithm=_algorithm(signed_by.attestation, signer),
        receipt_keys=_if_bound(machine, machine.attestation.receipt_keys),
        tls_spki=_tls_spki(end),
        tls_keys=_if_bound(machine, machine.attestation.tls_keys),
        compose_hash=machine.software.compose_hash,
        os_image_hash=machine.software.os_image_hash,
        tcb_status=machine.checked.tcb_status,
        advisories=machine.checked.advisories,
        fmspc=_fmspc(machine),
        gpus=gpus,
        nonce=question.evidence.nonce,
        reported_at=question.evidence.reported_at,
        synthetic=question.roots.synthetic,
    )


def _nothing(
    reason: str, report: Report | None, evidence: Evidence, policy: Policy, roots: Roots
) -> Session:
    without_gpu = [skipped(one, "policy", NO_GPU) for one in OF_GPUS]
    with_gpu = [unknown(one, "report", reason) for one in OF_GPUS]
    factors = (
        *(unknown(one, "report", reason) for one in OF_A_MACHINE),
        *(with_gpu if policy.has_gpu else without_gpu),
        unknown("gateway_attested", "report", reason),
        OFFLINE,
        _root(roots),
    )
    return Session(
        factors=in_order(factors),
        shape=report.shape if report else None,
        scope=report.scope if report else "model",
        nonce=evidence.nonce,
        reported_at=evidence.reported_at,
        synthetic=roots.synthetic,
    )


def _algorithm(attestation: Attestation, signer: str) -> str:
    """As served; else by the length of the signer, which no two share."""
    if attestation.signer == signer and attestation.algorithm:
        return attestation.algorithm
    return {40: "ecdsa", 64: "ed25519"}.get(len(signer), "")


def _signer(machine: Machine, choice: Choice) -> Factor:
    if not choice.is_found:
        told = "the report attests another signer than the message's"
        return failed("signer_bound", "report", told)
    identity = machine.binding.identity
    if choice.bound_as and identity and identity not in choice.bound_as:
        told = "the report data holds another key of the machine's than the message's"
        return failed("signer_bound", "quote", told)
    return next(one for one in machine.factors if one.name == "signer_bound")


def _signer_of(machine: Machine, choice: Choice) -> str:
    """None is named that the report data does not hold."""
    is_told = choice.bound_as or machine.binding.identity != "keyset"
    return choice.signer if is_told else ""


def _fmspc(machine: Machine) -> str:
    quote = machine.checked.quote
    return quote.collateral_key.partition("/")[0] if quote else ""


def _if_bound(machine: Machine, found: Mapping[str, _Key]) -> Mapping[str, _Key]:
    return found if machine.binding.identity == "keyset" else {}


def _tls_spki(end: Machine) -> str:
    """Of the machine in which the connection ends."""
    if not end.binding.tls:
        return ""
    keys_of_it = {end.attestation.tls_spki, *end.attestation.tls_keys.values()} - {""}
    return keys_of_it.pop() if len(keys_of_it) == 1 else ""


def _gpus(attestation: Attestation, question: Question) -> tuple[list[Factor], int]:
    if not question.policy.has_gpu:
        return [skipped(one, "policy", NO_GPU) for one in OF_GPUS], 0
    evidence, roots = question.evidence, question.roots
    factors, gpus = check_gpus(attestation.nvidia_payload, evidence.nonce, roots)
    measured = check_nras(
        evidence.nras, evidence.nras_keys, evidence.nonce, gpus, question.now, roots
    )  # fmt: skip
    return [*factors, measured], gpus


def _gateway(report: Report, machine: Machine, gateway: Machine | None, policy: Policy) -> Factor:
    """A gateway may show its own machine in the form of a model's: only who expects it can tell."""
    if not _is_accepted(report.shape, policy):
        told = f"a report of the shape {report.shape} is not accepted of this provider"
        return failed("gateway_attested", "policy", told)
    if gateway:
        return gateway.summary()
    if report.shape == "near-gateway":
        return unknown(
            "gateway_attested", "report", "the report does not hold the gateway's own quote"
        )
    if report.scope == "gateway":
        return machine.summary()
    return skipped("gateway_attested", "report", "no gateway of the provider's is in between")


def _is_accepted(shape: Shape, policy: Policy) -> bool:
    return shape in policy.shapes if policy.shapes else shape not in RESOLD


def _root(roots: Roots) -> Factor:
    told = f"SYNTHETIC: {roots.name}; this proves nothing" if roots.synthetic else roots.name
    return passed("trust_root", "policy", told)
