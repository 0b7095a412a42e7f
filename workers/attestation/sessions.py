"""Attestation sessions: what a provider's machine proved, kept while its report is fresh.

A session is stored before it is named, so that whatever a receipt or a refusal names can be shown. Those
that nobody names are not stored: a provider may answer each try with another megabyte.
"""

import asyncio
import secrets
import uuid
from collections import OrderedDict
from functools import partial

import msgspec
import structlog

from shared.attestation.choice import choose
from shared.attestation.evidence import Evidence
from shared.attestation.factor import Factor
from shared.attestation.receipt import evidence_digests, evidence_texts
from shared.attestation.report import read_report
from shared.attestation.session import Session, collateral_needed, examine, unproven
from shared.clock import Clock, utc
from shared.ids import new_id
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import (
    AttestationSession,
    SessionEvidence,
    SessionStore,
)
from shared.postgres.engine import STORE_ERRORS
from workers.attestation.collateral import Collaterals
from workers.attestation.fetcher import EvidenceAway, Fetcher
from workers.attestation.history import History
from workers.attestation.nras import Nras
from workers.attestation.shelf import Shelf
from workers.attestation.target import Target

MOST_KEPT = 200
"""Of at most a megabyte or so each: a provider chooses its signers."""
MOST_REMEMBERED = 10_000
AGAIN_SECONDS = 2.0
"""What did not verify is not asked for again before that."""
NONCE_BYTES = 32

log = structlog.get_logger()


class HeldSession(msgspec.Struct, frozen=True, kw_only=True):
    """With everything a receipt needs of it."""

    session_id: str
    session: Session
    evidence: Evidence
    """Without a message's signature."""
    verified_at: float
    """Epoch seconds; whoever verifies again does so at this time."""
    unproven: tuple[str, ...]
    """The factors that failed or are open; empty: it is verified."""
    history: tuple[Factor, ...] = ()

    @property
    def is_verified(self) -> bool:
        return not self.unproven


class Sessions:
    """Of one process. At most one report at a time is asked for, for each place."""

    def __init__(
        self, fetcher: Fetcher, store: SessionStore, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._collaterals = Collaterals(fetcher, clock)
        self._nras = Nras(fetcher, clock)
        self._store = store
        self._history = History(store, metrics)
        self._clock = clock
        self._metrics = metrics
        self._shelf: Shelf[HeldSession] = Shelf(clock, most=MOST_KEPT, away_seconds=AGAIN_SECONDS)
        self._stored: OrderedDict[str, None] = OrderedDict()

    async def get(self, target: Target, *, signer: str = "") -> HeldSession:
        """A fresh one, verified or not; of the machine that signs as `signer`, where it is given.

        Raises EvidenceAway.
        """
        if signer:
            held = self._shelf.look(target.place(""))
            if held is not None and held.session.signer == signer and self._is_fresh(target, held):
                return held
        return await self._shelf.get(
            target.place(signer),
            lambda: self._establish(target, signer),
            is_fresh=partial(self._is_fresh, target),
        )

    def forget(self, target: Target) -> None:
        """Its TLS key is another than was attested: the next call needs a new report."""
        self._shelf.take_off(target.has_place)

    async def keep(self, held: HeldSession, target: Target) -> None:
        """Stores it, before a receipt or a prompt names it. Raises EvidenceAway."""
        if held.session_id in self._stored:
            return
        try:
            await self._store.add(_stored(held, target), evidence_texts(held.evidence))
        except STORE_ERRORS as error:
            raise EvidenceAway("the store of sessions is away") from error
        self._stored[held.session_id] = None
        if len(self._stored) > MOST_REMEMBERED:
            self._stored.popitem(last=False)

    def _is_fresh(self, target: Target, held: HeldSession) -> bool:
        seconds = target.policy.report_seconds if held.is_verified else AGAIN_SECONDS
        return self._clock.now() - held.evidence.reported_at < seconds

    async def _establish(self, target: Target, signer: str) -> HeldSession:
        evidence = await self._gather(target, signer)
        now = self._clock.now()
        # A report of eight GPUs takes tens of milliseconds, most of them without the lock of Python.
        session = await asyncio.to_thread(
            examine, evidence, signer=signer, upstream_model=target.upstream_model,
            policy=target.policy, roots=target.roots, now=now,
        )  # fmt: skip
        try:
            history = await self._history.compare(target, session)
        except STORE_ERRORS as error:
            raise EvidenceAway("the store of sessions is away") from error
        held = HeldSession(
            session_id=new_id(), session=session, evidence=evidence, verified_at=now,
            unproven=unproven(session, target.policy.demoted), history=(history,),
        )  # fmt: skip
        self._tell(target, held)
        return held

    async def _gather(self, target: Target, signer: str) -> Evidence:
        nonce = secrets.token_hex(NONCE_BYTES)
        found = await target.asked.report(
            target.upstream_model, nonce=nonce, signer=signer, may_be_aci=target.may_be_aci
        )
        text, reported_at = found.text, self._clock.now()
        async with asyncio.TaskGroup() as group:
            collateral = group.create_task(self._collateral(target, text, signer))
            tokens = group.create_task(self._tokens(target, text, signer))
        answer, keys = tokens.result()
        return Evidence(
            nonce=nonce, report=text, reported_at=reported_at,
            collateral=collateral.result(), nras=answer, nras_keys=keys,
        )  # fmt: skip

    async def _collateral(self, target: Target, report: str, signer: str) -> dict[str, str]:
        """What could be had."""
        found: dict[str, str] = {}
        for key in await asyncio.to_thread(
            collateral_needed, report, signer, target.upstream_model
        ):
            try:
                found[key] = await self._collaterals.get(target.pccs_url, key)
            except EvidenceAway as error:
                self._alarm("collateral_away", target, reason=str(error))
        return found

    async def _tokens(self, target: Target, report: str, signer: str) -> tuple[str, str]:
        read = await asyncio.to_thread(read_report, report)
        choice = choose(read, signer, target.upstream_model) if read is not None else None
        if choice is None or not choice.attestation.nvidia_payload:
            return "", ""
        try:
            async with asyncio.timeout(target.nras_seconds):
                return await self._nras.attest(target.nras_url, choice.attestation.nvidia_payload)
        except (EvidenceAway, TimeoutError) as error:
            self._alarm("nras_away", target, reason=str(error) or "it took too long")
            return "", ""

    def _tell(self, target: Target, held: HeldSession) -> None:
        label = "verified" if held.is_verified else "failed"
        self._metrics.attestation_sessions.labels(target.provider, label).inc()
        if held.session.synthetic:
            self._alarm("synthetic_root", target)
        if not held.is_verified:
            self._alarm("session_failed", target, factors=held.unproven)

    def _alarm(self, kind: str, target: Target, **more: object) -> None:
        self._metrics.attestation_alarms.labels(kind).inc()
        log.warning(
            "An attestation needs a look", action="attestation_" + kind,
            provider=target.provider, model=target.upstream_model, **more,
        )  # fmt: skip


def _stored(held: HeldSession, target: Target) -> AttestationSession:
    session, evidence = held.session, held.evidence
    return AttestationSession(
        session_id=uuid.UUID(held.session_id),
        provider=target.provider,
        upstream_model=target.upstream_model,
        host=target.host,
        shape=session.shape or "",
        scope=session.scope,
        signer=session.signer,
        algorithm=session.algorithm,
        tls_spki=session.tls_spki,
        compose_hash=session.compose_hash,
        os_image_hash=session.os_image_hash,
        tcb_status=session.tcb_status,
        label="verified" if held.is_verified else "failed",
        factors=(*session.factors, *held.history),
        synthetic=session.synthetic,
        fetched_at=utc(evidence.reported_at),
        expires_at=utc(evidence.reported_at + target.policy.report_seconds),
        nonce=evidence.nonce,
        evidence=msgspec.convert(evidence_digests(evidence), SessionEvidence),
    )
