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

OF_A_SIGNATURE = (
    "request_hash", "response_hash", "signature_valid", "signature_model", "signature_scope",
)  # fmt: skip
OF_A_MESSAGE = ("tls_pinned", *OF_A_SIGNATURE)
"""Those that no report alone can tell; a call that was not made has none of them."""
FRESH_AND_GENUINE = (
    "quote_valid", "collateral_current", "report_nonce", "signer_bound", "tcb_status",
    "not_debug", "rtmr_replay",
)  # fmt: skip
"""What a provider's gateway is asked for too. The quote first: until it is verified, what it holds
is open, and the first open factor is the cause that a receipt names."""
OF_SOFTWARE = ("compose_known", "os_image_known")
OF_A_MACHINE = (*FRESH_AND_GENUINE, "compose_hash", *OF_SOFTWARE)
OF_GPUS = ("gpu_present", "gpu_nonce", "gpu_genuine", "gpu_measurements")
BY_WORD = ("signer_history",)
"""What the gateway tells and no file can show again. They only inform."""

DECIDING = (*OF_A_MESSAGE, *FRESH_AND_GENUINE, "compose_hash", *OF_GPUS, "gateway_attested")
"""Without these no label is given; in the order they are told."""
INFORMING = (*OF_SOFTWARE, "image_provenance", *BY_WORD, "trust_root")
"""Shown beside the label. They decide only by failing."""
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
