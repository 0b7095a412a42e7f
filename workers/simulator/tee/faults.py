"""What can be wrong with a confidential machine or its signature, by the name of the model."""

import re
from collections.abc import Mapping

from workers.simulator.tee.collateral import State

PREFIX = "tee-"
HONEST = ("honest", "reserialised")
"""`tee-reserialised` is answered whole with the signature of another dump of the same answer."""

SESSION_FAULTS: Mapping[str, str] = {
    "foreign-nonce": "report_nonce",
    "stale-report": "report_nonce",
    "unbound-signer": "signer_bound",
    "foreign-root": "quote_valid",
    "tampered-quote": "quote_valid",
    "tampered-measurement": "quote_valid",
    "revoked": "tcb_status",
    "out-of-date": "tcb_status",
    "sw-hardening": "tcb_status",
    "expired-collateral": "collateral_current",
    "pccs-away": "quote_valid",
    "debug": "not_debug",
    "tampered-event-log": "rtmr_replay",
    "no-event-log": "rtmr_replay",
    "changed-compose": "compose_hash",
    "missing-gpu": "gpu_present",
    "empty-evidence": "gpu_present",
    "duplicated-gpu": "gpu_present",
    "gpu-nonce": "gpu_nonce",
    "gpu-signature": "gpu_genuine",
    "gpu-root": "gpu_genuine",
    "nras-false": "gpu_measurements",
    "nras-alg-none": "gpu_measurements",
    "nras-nonce": "gpu_measurements",
    "nras-expired": "gpu_measurements",
    "nras-key": "gpu_measurements",
    "nras-away": "gpu_measurements",
    "gateway-debug": "gateway_attested",
    "tls-not-attested": "tls_pinned",
    "report-stall": "",
    "report-500": "",
    "report-garbage": "",
}
"""Of the machine, and the factor that shows each; none where there is no report at all."""
MESSAGE_FAULTS: Mapping[str, str] = {
    "wrong-signature": "signature_valid",
    "other-signer": "signer_bound",
    "other-model": "signature_model",
    "wrong-request": "request_hash",
    "wrong-response": "response_hash",
    "signature-garbage": "signature_valid",
    "signature-error": "signature_valid",
    "signature-500": "signature_valid",
    "signature-never": "signature_valid",
}
"""Of one message's signature. Besides those: `signature-404-<n>`, which comes at the next try."""

_LATE = re.compile(r"signature-404-(\d{1,2})")
_STATES: Mapping[str, State] = {
    "revoked": State(tcb="Revoked"),
    "out-of-date": State(tcb="OutOfDate"),
    "sw-hardening": State(tcb="SWHardeningNeeded"),
    "expired-collateral": State(expired=True),
    "pccs-away": State(),
}
"""What a machine's platform is known for: collateral is asked for by the platform alone."""
_FMSPC_BASE = 0x00906ED50000


def kind_of(model: str) -> str | None:
    """The fault that a model's name asks for: empty of an honest one, None of an unknown one."""
    if not model.startswith(PREFIX):
        return ""
    kind = model.removeprefix(PREFIX)
    if kind in HONEST:
        return ""
    known = kind in SESSION_FAULTS or kind in MESSAGE_FAULTS or _LATE.fullmatch(kind)
    return kind if known else None


def models() -> list[str]:
    """Their names."""
    kinds = [*HONEST, *SESSION_FAULTS, *MESSAGE_FAULTS, "signature-404-2"]
    return [PREFIX + kind for kind in kinds]


def tries_before_signature(kind: str) -> int:
    late = _LATE.fullmatch(kind)
    return int(late[1]) if late else 0


def fmspc_of(kind: str) -> str:
    """The platform of a machine with that fault."""
    number = [*_STATES].index(kind) + 1 if kind in _STATES else 0
    return f"{_FMSPC_BASE + number:012X}"


def state_of(fmspc: str) -> State | None:
    """None: of a platform that nobody has heard of, or that the service is away for."""
    by_fmspc = {fmspc_of(kind): kind for kind in ("", *_STATES)}
    kind = by_fmspc.get(fmspc.upper())
    return None if kind is None or kind == "pccs-away" else _STATES.get(kind, State())
