"""Makes the receipt of one transcript: fetches what proves the call, judges it, signs the document."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from shared.attestation.evidence import Evidence
from shared.attestation.merkle import leaf_hash
from shared.attestation.message import read_signature
from shared.attestation.policy import Policy
from shared.attestation.receipt import digest_of, document_of
from shared.attestation.roots import PRODUCTION
from shared.attestation.session import Session, examine
from shared.attestation.signing import ReceiptKey
from shared.attestation.verdict import Verdict, judge
from shared.attestation.verify import conclude, conclude_refusal
from shared.clock import Clock
from shared.postgres.receipts import SettledReceipt
from shared.transcript import Transcript
from workers.attestation.fetcher import EvidenceAway
from workers.attestation.sessions import HeldSession, Sessions
from workers.attestation.target import Target
from workers.receipts.addressees import Addressees
from workers.receipts.share import Share
from workers.receipts.stored_sessions import Basis, StoredSessions

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
DEADLINE_SECONDS = 1_200.0
"""Where the catalog that would say it is gone: signatures are kept for so long."""
LAST_LOOK_SECONDS = 5.0
NEVER_SIGN = ("chutes", "tinfoil")

log = structlog.get_logger()


@dataclass(slots=True)
class Found:
    """What has been obtained until now."""

    signature: str = ""
    held: HeldSession | None = None
    never: bool = False
    """The provider has said that there will be no signature."""


class Maker:
    """Of one process."""

    def __init__(
        self, *, addressees: Addressees, sessions: Sessions, stored: StoredSessions, key: ReceiptKey, clock: Clock,
        gateway_version: str,
    ) -> None:  # fmt: skip
        self._addressees = addressees
        self._sessions = sessions
        self._stored = stored
        self._key = key
        self._clock = clock
        self._version = gateway_version
        self._shares: defaultdict[str, Share] = defaultdict(Share)

    async def make(self, transcript: Transcript) -> SettledReceipt:
        """Returns at its deadline at the latest, with what there is by then."""
        kind = transcript.receipt_kind
        if kind == "zdr":
            return self._settled(transcript, Verdict("n/a"), Basis(), None)
        if kind == "refusal":
            return await self._refusal(transcript)
        if not transcript.complete:
            target = await self._addressees.of(transcript)
            verdict = self._judge(transcript, target, Found(), is_over=True)
            return self._settled(transcript, verdict, Basis(), target)
        return await self._call(transcript)

    # ---- a call

    async def _call(self, transcript: Transcript) -> SettledReceipt:
        found, pause = Found(never=not transcript.upstream_id), FIRST_PAUSE_SECONDS
        share = self._shares[transcript.provider]
        share.waiting += 1
        try:
            while True:
                target = await self._addressees.of(transcript)
                left = _left(transcript, target, self._clock.now())
                if target is not None:
                    await self._look(transcript, target, found, share, left)
                is_over = left <= 0 or found.never or share.is_spent(pause)
                verdict = self._judge(transcript, target, found, is_over=is_over)
                if verdict.label != "pending" and await self._is_kept(found, target):
                    return self._settled(transcript, verdict, _basis(found), target)
                await asyncio.sleep(min(pause, max(FIRST_PAUSE_SECONDS, left)))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        finally:
            share.waiting -= 1

    async def _is_kept(self, found: Found, target: Target | None) -> bool:
        """Whether the session that the receipt names is stored."""
        try:
            if found.held is not None and target is not None:
                await self._sessions.keep(found.held, target)
        except EvidenceAway as error:
            log.warning("Receipts wait", action="receipts_wait", reason=str(error))
            return False
        return True

    async def _look(
        self, transcript: Transcript, target: Target, found: Found, share: Share, left: float
    ) -> None:
        """Gets what is missing, as far as it can be had now: the signature, then its signer's session.

        Without a signature there is still the machine to tell of: the one the prompt was let out to,
        or else whichever answers now.
        """
        try:
            async with asyncio.timeout(max(LAST_LOOK_SECONDS, left)):
                async with share.calls:
                    if not found.signature and not found.never:
                        await self._look_for_signature(transcript, target, found)
                if found.signature:
                    read = read_signature(found.signature)
                    signer = read.signer if read else ""
                    found.held = await self._sessions.get(target, signer=signer)
                    return
                let_out = await self._stored.held(transcript)
                found.held = let_out or await self._sessions.get(target)
                found.never = found.never or found.held.session.shape in NEVER_SIGN
        except (EvidenceAway, TimeoutError) as error:
            log.info(
                "Evidence is not there yet", action="evidence_away",
                request_id=transcript.request_id, provider=target.provider, reason=str(error),
            )  # fmt: skip

    async def _look_for_signature(
        self, transcript: Transcript, target: Target, found: Found
    ) -> None:
        """Signatures live for twenty minutes, in the memory of one node: it is asked for first."""
        if transcript.upstream_receipt_id:
            text = await target.asked.receipt(transcript.upstream_receipt_id)
        else:
            text = await target.asked.signature(transcript.upstream_id, target.upstream_model)
        read = read_signature(text) if text else None
        if read is not None and read.error_code:
            found.never = True
        found.signature = text or ""

    def _judge(
        self, transcript: Transcript, target: Target | None, found: Found, *, is_over: bool
    ) -> Verdict:
        held, policy = found.held, target.policy if target is not None else Policy()
        session = held.session if held is not None else _nothing(transcript, policy)
        if not found.signature and not is_over:
            return judge((), gateway_scope=False, is_over=False)  # another machine may have signed
        return conclude(
            transcript, found.signature, session, policy=policy, is_over=is_over,
            history=held.history if held is not None else (),
        )  # fmt: skip

    # ---- a refusal

    async def _refusal(self, transcript: Transcript) -> SettledReceipt:
        """Nothing was sent: the receipt shows the session that was refused."""
        target = await self._addressees.of(transcript)
        held = await self._stored.held(transcript)
        policy = target.policy if target is not None else Policy()
        session = held.session if held is not None else _nothing(transcript, policy)
        verdict = conclude_refusal(session.factors, policy=policy, cause=transcript.cause)
        return self._settled(transcript, verdict, _basis(Found(held=held)), target)

    # ---- the document

    def _settled(
        self, transcript: Transcript, verdict: Verdict, basis: Basis, target: Target | None
    ) -> SettledReceipt:
        document = document_of(
            transcript,
            verdict,
            basis.evidence,
            policy=target.policy if target is not None else Policy(),
            roots=target.roots if target is not None else PRODUCTION,
            session_id=basis.session_id,
            verified_at=basis.verified_at or self._clock.now(),
            gateway_version=self._version,
        )
        signed = self._key.sign_document(document)
        signature = basis.evidence.signature
        return SettledReceipt(
            receipt_id=transcript.receipt_id,
            label=verdict.label,
            reason=verdict.reason,
            detail=verdict.detail,
            session_id=basis.session_id or None,
            document=signed,
            leaf_hash=leaf_hash(signed),
            # What belongs to the session was stored with it.
            evidence={digest_of(signature): signature} if signature else {},
        )


def _left(transcript: Transcript, target: Target | None, now: float) -> float:
    """Seconds until what was not obtained never will be."""
    seconds = target.deadline_seconds if target is not None else DEADLINE_SECONDS
    return transcript.ended_at + seconds - now


def _nothing(transcript: Transcript, policy: Policy) -> Session:
    """What is known of a machine that nobody has heard of."""
    return examine(
        Evidence(), signer="", upstream_model=transcript.upstream_model, policy=policy,
        roots=PRODUCTION, now=transcript.ended_at,
    )  # fmt: skip


def _basis(found: Found) -> Basis:
    held = found.held
    if held is None:
        return Basis(Evidence(signature=found.signature))
    evidence = replace(held.evidence, signature=found.signature)
    return Basis(evidence, held.session_id, held.verified_at)
