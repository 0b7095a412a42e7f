"""A simulated PCCS: the collateral of the synthetic platforms, at Intel's paths."""

import urllib.parse
from collections import OrderedDict

from shared.clock import Clock
from workers.simulator.exchange import JSON, Exchange
from workers.simulator.problems import Refused
from workers.simulator.tee.collateral import Collateral, State, collateral
from workers.simulator.tee.faults import fmspc_of, state_of
from workers.simulator.tee.pki import Pki

CA = "platform"
DER = b"application/pkix-crl"
FRESH_SECONDS = 600.0
"""The documents are issued anew after that, as Intel does it now and then."""
KEPT_PLATFORMS = 32
AWAY = 503
TCB_CHAIN, ENCLAVE_CHAIN, CRL_CHAIN = (
    b"tcb-info-issuer-chain",
    b"sgx-enclave-identity-issuer-chain",
    b"sgx-pck-crl-issuer-chain",
)


class Intel:
    def __init__(self, pki: Pki, clock: Clock) -> None:
        self._pki = pki
        self._clock = clock
        self._issued: OrderedDict[str, tuple[float, Collateral]] = OrderedDict()

    def collateral(self, fmspc: str, state: State) -> Collateral:
        at, issued = self._issued.get(fmspc, (float("-inf"), None))
        now = self._clock.now()
        if issued is None or now - at > FRESH_SECONDS:
            issued = collateral(self._pki, fmspc, state, now=now)
            self._issued[fmspc] = now, issued
            if len(self._issued) > KEPT_PLATFORMS:
                self._issued.popitem(last=False)
        return issued

    async def tcb(self, exchange: Exchange) -> None:
        fmspc = exchange.query.get("fmspc", "").upper()
        if fmspc == fmspc_of("pccs-away"):
            raise Refused(AWAY, "Simulated: the collateral service is away.")
        state = state_of(fmspc)
        if state is None:
            raise Refused(404, "No such platform.", param="fmspc")
        told = self.collateral(fmspc, state)
        body = _signed("tcbInfo", told.tcb_info, told.tcb_info_signature)
        await _respond(exchange, body, TCB_CHAIN, told.tcb_info_issuer_chain)

    async def enclave(self, exchange: Exchange) -> None:
        told = self._any()
        body = _signed("enclaveIdentity", told.qe_identity, told.qe_identity_signature)
        await _respond(exchange, body, ENCLAVE_CHAIN, told.qe_identity_issuer_chain)

    async def platform_crl(self, exchange: Exchange) -> None:
        if exchange.query.get("ca") != CA:
            raise Refused(404, "No such authority.", param="ca")
        told = self._any()
        is_der = exchange.query.get("encoding") == "der"
        body = bytes.fromhex(told.pck_crl) if is_der else told.pck_crl.encode()
        await _respond(exchange, body, CRL_CHAIN, told.pck_crl_issuer_chain, kind=DER)

    async def root_crl(self, exchange: Exchange) -> None:
        """As hex: so do PCCS serve it, other than Intel itself."""
        await exchange.respond(200, self._any().root_ca_crl.encode(), kind=DER)

    def _any(self) -> Collateral:
        """What does not depend on the platform."""
        return self.collateral(fmspc_of(""), State())


def _signed(name: str, document: str, signature: str) -> bytes:
    """The signature covers the inner document's very characters."""
    return f'{{"{name}":{document},"signature":"{signature}"}}'.encode()


async def _respond(
    exchange: Exchange, body: bytes, name: bytes, chain: str, *, kind: bytes = JSON
) -> None:
    quoted = urllib.parse.quote(chain, safe="").encode()
    await exchange.respond(200, body, kind=kind, headers=[(name, quoted)])
