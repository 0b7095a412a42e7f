"""The synthetic TEE behind the simulator's profiles: who attests there, and what was answered."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

import msgspec

from shared.clock import Clock
from workers.simulator.tap import Tap
from workers.simulator.tee.aci import AciB, AciC
from workers.simulator.tee.aci_gateway import AciGateway
from workers.simulator.tee.classic import Json
from workers.simulator.tee.faults import PREFIX, kind_of
from workers.simulator.tee.fleet import Fleet
from workers.simulator.tee.intel import Intel
from workers.simulator.tee.messages import Message, Messages
from workers.simulator.tee.near import NearDirect, NearGateway
from workers.simulator.tee.nvidia import Nvidia
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.resold import Chutes, Tinfoil
from workers.simulator.tee.vllm_proxy import VllmProxy

KEPT_REPORTS = 256
"""About 15 MB of the largest."""

VLLM_PROXY_PROFILE, RESERIALISED = "phala", "reserialised"
"""It signs a whole answer as Python's json dumps it, though it sends another form."""

_encode = msgspec.json.Encoder().encode


class Reporter(Protocol):
    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json: ...


class Signatory(Reporter, Protocol):
    def signature(self, message: Message, query: Mapping[str, str]) -> Json: ...


class Tee:
    """Profiles are known by their names."""

    def __init__(self, pki: Pki, clock: Clock, *, ends_tls: bool = False) -> None:
        self.pki = pki
        self.ends_tls = ends_tls
        self.fleet = Fleet(pki, ends_tls=ends_tls)
        self.messages = Messages(clock)
        self.intel = Intel(pki, clock)
        self.nvidia = Nvidia(pki, clock)
        self.aci: Mapping[str, AciGateway] = {
            "aci-b": AciB(self.fleet, clock),
            "aci-c": AciC(self.fleet, clock),
        }
        self.signatories: Mapping[str, Signatory] = {
            "near": NearGateway(self.fleet),
            "near-direct": NearDirect(self.fleet),
            "phala": VllmProxy(self.fleet),
            **self.aci,
        }
        self.reporters: Mapping[str, Reporter] = {
            **self.signatories,
            "chutes": Chutes(self.fleet),
            "tinfoil": Tinfoil(self.fleet),
        }
        self._reports: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def serves(self, profile: str, model: str) -> bool:
        """Whether the model is one of those with a fault of the TEE's, or an honest one of it."""
        is_known = model.startswith(PREFIX) and kind_of(model) is not None
        return is_known and profile in self.reporters

    def tap(self, profile: str, model: str) -> Tap | None:
        """None: nobody signs there."""
        if profile not in self.signatories:
            return None
        return Tap(keeps=profile == VLLM_PROXY_PROFILE and RESERIALISED in model)

    def report(self, profile: str, query: Mapping[str, str], *, model: str) -> bytes:
        """The same for the same question: minting eight GPUs' evidence takes milliseconds."""
        key = ("report", profile, model, *sorted(query.items()))
        if key not in self._reports:
            fault = kind_of(model) or ""
            report = self.reporters[profile].report(query, model=model, fault=fault)
            self._keep(key, _encode(report))
        return self._reports[key]

    def _keep(self, key: tuple[object, ...], report: bytes) -> None:
        self._reports[key] = report
        if len(self._reports) > KEPT_REPORTS:
            self._reports.popitem(last=False)
