"""What a receipt rests on: the evidence of a session, from memory or as it was stored."""

import msgspec

from shared.attestation.evidence import Evidence
from shared.attestation.factor import Factor
from shared.postgres.attestation_sessions import SessionStore
from shared.transcript import Transcript


class Basis(msgspec.Struct, frozen=True):
    """Empty where there was none."""

    evidence: Evidence = Evidence()
    session_id: str = ""
    verified_at: float = 0.0


class Refused:
    """Finds the session under which a prompt was not sent: the worker that refused it stored it."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def basis(self, transcript: Transcript) -> tuple[Basis, tuple[Factor, ...]]:
        """Of the last one that was tried. Raises what the store raises."""
        if not transcript.sessions:
            return Basis(), ()
        session_id = transcript.sessions[-1]
        session = await self._store.get(session_id)
        if session is None:
            return Basis(), ()
        texts = await self._store.evidence(session)
        named = session.evidence
        evidence = Evidence(
            nonce=session.nonce,
            report=texts.get(named.report, ""),
            reported_at=session.fetched_at.timestamp(),
            collateral={key: texts.get(digest, "") for key, digest in named.collateral.items()},
            nras=texts.get(named.nras, ""),
            nras_keys=texts.get(named.nras_keys, ""),
        )
        return Basis(evidence, session_id, evidence.reported_at), session.factors
