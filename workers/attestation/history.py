"""Whether a model is still served by what served it last time: a change is told, and judged by none.

Keys of some machines are new with every boot, so another signer alone is no failure.
"""

import structlog

from shared.attestation.factor import Factor, passed, unknown
from shared.attestation.session import Session
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import SessionStore
from workers.attestation.target import Target

WATCHED = ("signer", "compose_hash", "tcb_status")
NAME = "signer_history"

log = structlog.get_logger()


class History:
    """Compares with the store's latest session."""

    def __init__(self, store: SessionStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def compare(self, target: Target, session: Session) -> Factor:
        """Raises what the store raises."""
        last = await self._store.latest(target.provider, target.upstream_model)
        if last is None:
            return unknown(NAME, "policy", "This is the first session of the model.")
        changed = [name for name in WATCHED if getattr(last, name) != getattr(session, name)]
        if not changed:
            return passed(NAME, "policy", "Signer, compose hash and TCB status are as last time.")
        for name in changed:
            self._metrics.attestation_alarms.labels(f"new_{name}").inc()
        log.warning(
            "What serves a model has changed", action="attestation_changed",
            provider=target.provider, model=target.upstream_model, changed=changed,
        )  # fmt: skip
        return unknown(NAME, "policy", f"Changed since last time: {', '.join(changed)}.")
