"""The verdict on a call: its label, given only by rule, and the factors that led to it."""

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

from shared.attestation.factor import DECIDING, Factor, deciding, in_order

Label = Literal["verified", "gateway_only", "pending", "failed", "n/a"]
Reason = Literal["", "evidence_invalid", "evidence_unavailable"]


class Verdict(msgspec.Struct, frozen=True):
    """`detail` names the factor that decided, or the cause."""

    label: Label
    reason: Reason = ""
    detail: str = ""
    factors: tuple[Factor, ...] = ()


def judge(
    factors: Iterable[Factor],
    *,
    gateway_scope: bool,
    demoted: Collection[str] = (),
    needed: Collection[str] = DECIDING,
    complete: bool = True,
    cause: str = "",
    is_over: bool,
) -> Verdict:
    """The label of a TEE call.

    `gateway_scope`: its message was signed by a gateway's machine. `demoted`: deciding factors that
    an operator only wants to be told of; any but `DEMOTABLE` decide all the same. `is_over`: nothing
    more will be obtained. A factor that decides (`needed`) and is missing counts as unknown.
    """
    told = in_order(factors)
    failing = next((one for one in told if one.status == "fail"), None)
    if failing is not None:
        return Verdict("failed", "evidence_invalid", failing.name, told)
    if not complete:
        return Verdict("failed", "evidence_unavailable", cause or "incomplete", told)
    by_name = {one.name: one.status for one in told}
    asked = deciding(needed, demoted)
    open_one = next((n for n in asked if by_name.get(n, "unknown") == "unknown"), None)
    if open_one is not None:
        if is_over:
            return Verdict("failed", "evidence_unavailable", open_one, told)
        return Verdict("pending", "", open_one, told)
    return Verdict("gateway_only" if gateway_scope else "verified", "", "", told)
