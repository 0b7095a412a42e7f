"""A factor: one named thing that was checked, what came of it, and where the answer was found."""

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

from shared.document import DEMOTABLE

Status = Literal["pass", "fail", "skip", "unknown"]
"""`unknown`: not, or not yet, obtainable. `skip`: does not apply."""
Source = Literal[
    "computed", "report", "quote", "event_log", "collateral",
    "gpu_evidence", "nras", "signature", "tls", "policy",
]  # fmt: skip

DECIDING = (
    "tls_pinned", "request_hash", "response_hash", "signature_valid", "signature_model",
    "signature_scope", "report_nonce", "signer_bound", "quote_valid", "collateral_current",
    "tcb_status", "not_debug", "rtmr_replay", "compose_hash", "gpu_present", "gpu_nonce",
    "gpu_genuine", "gpu_measurements", "gateway_attested",
)  # fmt: skip
"""Without these no label is given; in the order they are told."""
INFORMING = (
    "compose_known", "os_image_known", "image_provenance", "signer_history", "trust_root",
)  # fmt: skip
"""Shown beside the label. They decide only by failing."""
OF_A_MESSAGE = (
    "tls_pinned", "request_hash", "response_hash", "signature_valid", "signature_model",
    "signature_scope",
)  # fmt: skip
"""Those that no report alone can tell."""
NAMES = DECIDING + INFORMING


class Factor(msgspec.Struct, frozen=True):
    """`detail` is a sentence for people; it holds no content."""

    name: str
    status: Status
    source: Source
    detail: str = ""


def passed(name: str, source: Source, detail: str = "") -> Factor:
    return Factor(name, "pass", source, detail)


def failed(name: str, source: Source, detail: str) -> Factor:
    return Factor(name, "fail", source, detail)


def skipped(name: str, source: Source, detail: str) -> Factor:
    return Factor(name, "skip", source, detail)


def unknown(name: str, source: Source, detail: str) -> Factor:
    return Factor(name, "unknown", source, detail)


def deciding(names: Iterable[str], demoted: Collection[str]) -> list[str]:
    """Those that still decide. Nothing but what may be demoted is, whatever a policy asks for."""
    return [name for name in names if name not in demoted or name not in DEMOTABLE]


def in_order(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    """As they are told."""
    return tuple(sorted(factors, key=lambda one: NAMES.index(one.name)))
