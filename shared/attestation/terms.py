"""Terms: what an auditor asks of a receipt, and by whose policy it is judged again."""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from shared.attestation.policy import Policy

DEFAULT = Policy()
Chosen = dict[str, object]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    gateway_keys: frozenset[str] = frozenset()
    """Lowercase hex of the keys that the auditor knows as the gateway's."""
    require_log: bool = False
    default_policy: bool = False
    """Judge by the default policy in place of the receipt's. Lists stay: they only ever refuse."""
    allowed_tcb: tuple[str, ...] | None = None
    """In place of the receipt's."""
    no_demoted: bool = False
    accept_policy: bool = False
    """Take the receipt's policy where it is laxer than the default."""

    def policy(self, told: Policy) -> Policy:
        """What a receipt is judged by; `told`: its own policy."""
        return replace(told, **self._chosen())

    def laxer(self, told: Policy) -> tuple[str, ...]:
        """In what the gateway's choice goes beyond the default; not where the auditor has chosen."""
        default = {name: getattr(DEFAULT, name) for name in self._chosen()}
        return tuple(_laxer(replace(told, **default)))

    def _chosen(self) -> Chosen:
        chosen: Chosen = {}
        if self.default_policy:
            names = ("allowed_tcb", "demoted", "report_seconds", "has_gpu")
            chosen = {name: getattr(DEFAULT, name) for name in names}
        if self.allowed_tcb is not None:
            chosen["allowed_tcb"] = self.allowed_tcb
        if self.no_demoted:
            chosen["demoted"] = ()
        return chosen


def _laxer(policy: Policy) -> Iterable[str]:
    more = [status for status in policy.allowed_tcb if status not in DEFAULT.allowed_tcb]
    if more:
        yield f"TCB {', '.join(more)}"
    if policy.demoted:
        yield f"{', '.join(policy.demoted)} not needed"
    if policy.report_seconds > DEFAULT.report_seconds:
        yield f"reports of {policy.report_seconds:g} s"
    if not policy.has_gpu:
        yield "no GPU looked for"
