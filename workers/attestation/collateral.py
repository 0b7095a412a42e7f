"""Intel's collateral for quotes, from a PCCS or from Intel itself, kept for a day.

It depends on nothing but the platform (FMSPC) and the CA of its certificate. Paths and headers:
Intel's Provisioning Certification Service, API v4.
"""

import asyncio
import re
from typing import NamedTuple
from urllib.parse import unquote

import httpx
import msgspec

from shared.attestation.collateral import Window, read_window
from shared.clock import Clock
from workers.attestation.fetcher import EvidenceAway, Fetched, Fetcher
from workers.attestation.shelf import Shelf

KEEP_SECONDS = 86_400.0
MOST_KEPT = 100
AWAY_SECONDS = 60.0
"""After a failure, and for what has expired: not asked again before that."""
INTEL_HOST = "api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
KEY = re.compile(r"([0-9A-F]{12})/(platform|processor)")
TCB_CHAIN = "tcb-info-issuer-chain"
QE_CHAIN = "sgx-enclave-identity-issuer-chain"
CRL_CHAIN = "sgx-pck-crl-issuer-chain"
DER_SEQUENCE, LONG_LENGTH = 0x30, 0x80
"""How DER begins; no hex text has a second byte like that."""


class _Kept(NamedTuple):
    text: str
    fetched_at: float
    window: Window | None


class Collaterals:
    """By `FMSPC/ca`. One call at a time for each; the last good one outlives an outage."""

    def __init__(self, fetcher: Fetcher, clock: Clock) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._shelf: Shelf[_Kept] = Shelf(clock, most=MOST_KEPT, away_seconds=AWAY_SECONDS)

    async def get(self, pccs_url: str, key: str) -> str:
        """JSON of the nine members. Raises EvidenceAway."""
        name = (pccs_url, key)
        try:
            kept = await self._shelf.get(
                name, lambda: self._kept(pccs_url, key), is_fresh=self._is_fresh
            )
        except EvidenceAway:
            last = self._shelf.look(name)
            if last is None:
                raise
            return last.text  # whether it is still current is for the verifier to say
        return kept.text

    def _is_fresh(self, kept: _Kept) -> bool:
        """Young, and not past its own end: Intel may say something newer at any time."""
        now = self._clock.now()
        is_current = kept.window is not None and kept.window.holds(now)
        return now - kept.fetched_at < (KEEP_SECONDS if is_current else AWAY_SECONDS)

    async def _kept(self, pccs_url: str, key: str) -> _Kept:
        text = await self._fetch(pccs_url, key)
        return _Kept(text, self._clock.now(), read_window(text))

    async def _fetch(self, pccs_url: str, key: str) -> str:
        found = KEY.fullmatch(key)
        if found is None:
            raise EvidenceAway("the quote names no platform")
        fmspc, ca = found.groups()
        base = pccs_url.rstrip("/")
        try:
            async with asyncio.TaskGroup() as group:
                tcb = group.create_task(self._ok(f"{base}/tdx/certification/v4/tcb", fmspc=fmspc))
                qe = group.create_task(self._ok(f"{base}/tdx/certification/v4/qe/identity"))
                url = f"{base}/sgx/certification/v4/pckcrl"
                crl = group.create_task(self._ok(url, ca=ca, encoding="der"))
                root = group.create_task(self._ok(_root_crl(base)))
        except* EvidenceAway as group_error:
            raise EvidenceAway(str(group_error.exceptions[0])) from group_error
        tcb_info, tcb_signature = _signed(tcb.result().text)
        identity, qe_signature = _signed(qe.result().text)
        members = {
            "pck_crl_issuer_chain": _chain(crl.result(), CRL_CHAIN),
            "root_ca_crl": _as_hex(root.result()),
            "pck_crl": _as_hex(crl.result()),
            "tcb_info_issuer_chain": _chain(tcb.result(), TCB_CHAIN),
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": _chain(qe.result(), QE_CHAIN),
            "qe_identity": identity,
            "qe_identity_signature": qe_signature,
        }
        return msgspec.json.encode(members).decode()

    async def _ok(self, url: str, **params: str) -> Fetched:
        found = await self._fetcher.get(url, params=params)
        if found.status != 200:
            raise EvidenceAway(f"the collateral service answered with status {found.status}")
        return found


class _Signed(msgspec.Struct, rename="camel"):
    """The signature covers the inner object as it was written, so it is cut out, not dumped again."""

    signature: str
    tcb_info: msgspec.Raw = msgspec.Raw(b"")
    enclave_identity: msgspec.Raw = msgspec.Raw(b"")


def _signed(text: str) -> tuple[str, str]:
    """The inner object's text, and its signature. Raises EvidenceAway."""
    try:
        found = msgspec.json.decode(text, type=_Signed)
    except msgspec.DecodeError as error:
        raise EvidenceAway("the collateral service's answer cannot be read") from error
    return bytes(found.tcb_info or found.enclave_identity).decode(), found.signature


def _chain(found: Fetched, header: str) -> str:
    """PEM certificates, URL-encoded in a header; some services leave `Sgx-` away."""
    given = found.headers.get(header) or found.headers.get(f"sgx-{header}")
    if given is None:
        raise EvidenceAway("the collateral service sent no issuer chain")
    return unquote(given)


def _as_hex(found: Fetched) -> str:
    """A CRL: Intel sends DER, a PCCS its hex."""
    head = found.body[:2]
    is_der = len(head) == 2 and head[0] == DER_SEQUENCE and head[1] & LONG_LENGTH
    return found.body.hex() if is_der else found.text.strip().lower()


def _root_crl(base: str) -> str:
    intel = httpx.URL(base).host == INTEL_HOST
    return INTEL_ROOT_CRL if intel else f"{base}/sgx/certification/v4/rootcacrl"
