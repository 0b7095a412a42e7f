"""What a receipt rests on: the evidence of a session, from memory or as it was stored."""

from collections.abc import Mapping

import msgspec

from shared.attestation.evidence import Evidence
from shared.attestation.report import Scope, Shape
from shared.attestation.session import Session
from shared.postgres.attestation_sessions import AttestationSession, SessionStore
from shared.postgres.engine import STORE_ERRORS
from shared.transcript import Transcript
from workers.attestation.fetcher import EvidenceAway
from workers.attestation.history import NAME as HISTORY
from workers.attestation.sessions import HeldSession


class Basis(msgspec.Struct, frozen=True):
    """Empty where there was none."""

    evidence: Evidence = Evidence()
    session_id: str = ""
    verified_at: float = 0.0


class StoredSessions:
    """Finds the session under which a prompt was sent, or was not: its worker stored it before."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def held(self, transcript: Transcript) -> HeldSession | None:
        """Of the last one that was tried. Raises EvidenceAway."""
        if not transcript.sessions:
            return None
        try:
            row = await self._store.get(transcript.sessions[-1])
            texts = await self._store.evidence(row) if row is not None else {}
        except STORE_ERRORS as error:
            raise EvidenceAway("the store of sessions is away") from error
        return None if row is None else _held(row, texts)


def _held(row: AttestationSession, texts: Mapping[str, str]) -> HeldSession:
    named = row.evidence
    evidence = Evidence(
        nonce=row.nonce,
        report=texts.get(named.report, ""),
        reported_at=row.fetched_at.timestamp(),
        collateral={key: texts.get(digest, "") for key, digest in named.collateral.items()},
        nras=texts.get(named.nras, ""),
        nras_keys=texts.get(named.nras_keys, ""),
    )
    session = Session(
        factors=tuple(one for one in row.factors if one.name != HISTORY),
        shape=msgspec.convert(row.shape or None, Shape | None),
        scope=msgspec.convert(row.scope, Scope),
        signer=row.signer,
        algorithm=row.algorithm,
        tls_spki=row.tls_spki,
        nonce=row.nonce,
        reported_at=evidence.reported_at,
        synthetic=row.synthetic,
    )
    return HeldSession(
        session_id=row.session_id.hex,
        session=session,
        evidence=evidence,
        verified_at=evidence.reported_at,
        unproven=() if row.label == "verified" else ("stored",),
        history=tuple(one for one in row.factors if one.name == HISTORY),
    )
