"""Lets a prompt leave only for a machine that has proved itself, where a model or a key asks for that.

Verify, then send: the session is fresh and verified before the request is written, and where its report
names a TLS key, over a connection to that key alone.
"""

from typing import Protocol

import msgspec

from shared.attestation.verify import TLS_KEY_NOT_ATTESTED
from shared.errors import NotPermitted as Forbidden
from shared.errors import Overloaded
from workers.attestation.fetcher import EvidenceAway
from workers.attestation.sessions import HeldSession
from workers.attestation.target import Target
from workers.inference.upstream_errors import AttemptFailed
from workers.providers.http.pool import NO_PINS

RETRY_AFTER_SECONDS = 5.0


class Attested(Protocol):
    """Knows what proved itself: the process's sessions."""

    async def get(self, target: Target, *, signer: str = "") -> HeldSession:
        """Raises EvidenceAway."""
        ...

    async def keep(self, held: HeldSession, target: Target) -> None:
        """Stores it: what names it comes after. Raises EvidenceAway."""
        ...

    def forget(self, target: Target) -> None:
        """What was known of it does not hold any more."""
        ...


class Permit(msgspec.Struct, frozen=True):
    session_id: str
    pins: frozenset[str]
    """SHA-256 of the only SubjectPublicKeyInfo the prompt may go to; empty: the report names none."""


class NotPermitted(AttemptFailed):
    """Nothing was sent. `cause` is what its receipt says of it."""

    def __init__(
        self, message: str, session_id: str = "", *, cause: str = "attestation_failed"
    ) -> None:
        error = Overloaded(message, code="attestation_failed", retry_after=RETRY_AFTER_SECONDS)
        super().__init__(error, "elsewhere", against_provider=False)
        self.session_id = session_id
        self.cause = cause


class NeverPermitted(NotPermitted):
    """The model has nothing to prove: asking again changes nothing."""

    def __init__(self) -> None:
        super().__init__("", cause="model_not_attested")
        self.error = Forbidden(
            "The key asks for models that prove what they run on, and this one cannot.",
            code="model_not_attested",
        )


async def permit(sessions: Attested, target: Target | None) -> Permit:
    """Raises NotPermitted."""
    if target is None:
        raise NeverPermitted
    try:
        held = await sessions.get(target)
        await sessions.keep(held, target)
    except EvidenceAway as error:
        raise NotPermitted("The provider's attestation cannot be obtained now.") from error
    if not held.is_verified:
        told = f"The provider's attestation does not verify: {', '.join(held.unproven[:3])}."
        raise NotPermitted(told, held.session_id)
    spki = held.session.tls_spki_for(target.host)
    if spki is None and not target.policy.tls_key_required:
        return Permit(held.session_id, NO_PINS)
    if not spki:
        told = "The provider's attestation holds no TLS key of its host."
        raise NotPermitted(told, held.session_id, cause=TLS_KEY_NOT_ATTESTED)
    return Permit(held.session_id, frozenset({spki}))
