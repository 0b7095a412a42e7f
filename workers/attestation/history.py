"""Whether a model is still served by what served it before: a change is told, and judged by none.

Keys of some machines are new with every boot, and several machines may serve one model, each with a
key of its own: a signer is compared with itself, and is new where it was never seen.
"""

from collections import OrderedDict
from collections.abc import Collection

import structlog

from shared.attestation.factor import Factor, passed, unknown
from shared.attestation.session import Session
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import AttestationSession, SessionStore
from workers.attestation.target import Target

MOST_TOLD = 10_000
"""A provider chooses its signers."""
WATCHED = {"signer": "signer", "compose_hash": "compose hash", "tcb_status": "TCB status"}
NAME = "signer_history"

log = structlog.get_logger()


class History:
    """Compares with the store's latest session of the same signer; of any, where there is none."""

    def __init__(self, store: SessionStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._told: OrderedDict[tuple[str, ...], list[str]] = OrderedDict()
        """The last alarm of each signer, while it lasts: what nobody names is not stored, and would
        be news each time."""

    async def compare(self, target: Target, session: Session) -> Factor:
        """Raises what the store raises."""
        last = await self._last(target, session.signer)
        if last is None:
            return unknown(NAME, "policy", "this is the first session of the model")
        other = [name for name in WATCHED if getattr(last, name) != getattr(session, name)]
        # What a report does not show has not changed: its own factor says that it is not there.
        changed = [name for name in other if getattr(session, name)]
        if changed:
            self._alarm(target, session, changed)
            return unknown(NAME, "policy", f"changed since last time: {_told(changed)}")
        if other:
            return unknown(NAME, "policy", f"not shown this time: {_told(other)}")
        self._told.pop(_place(target, session), None)
        return passed(NAME, "policy", "signer, compose hash and TCB status are as last time")

    async def _last(self, target: Target, signer: str) -> AttestationSession | None:
        place = target.provider, target.upstream_model
        own = await self._store.latest(*place, signer=signer) if signer else None
        return own or await self._store.latest(*place)

    def _alarm(self, target: Target, session: Session, changed: Collection[str]) -> None:
        place, values = _place(target, session), [getattr(session, name) for name in changed]
        if self._told.get(place) == values:
            return
        self._told[place] = values
        if len(self._told) > MOST_TOLD:
            self._told.popitem(last=False)
        for name in changed:
            self._metrics.attestation_alarms.labels(f"new_{name}").inc()
        log.warning(
            "What serves a model has changed", action="attestation_changed",
            provider=target.provider, model=target.upstream_model, changed=changed,
        )  # fmt: skip


def _place(target: Target, session: Session) -> tuple[str, ...]:
    return target.provider, target.upstream_model, session.signer


def _told(names: Collection[str]) -> str:
    return ", ".join(WATCHED[name] for name in names)
