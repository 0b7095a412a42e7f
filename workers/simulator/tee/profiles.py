"""Profiles of the providers that attest, beside NEAR's gateway and Phala's first generation."""

from collections.abc import Mapping

from typing_extensions import override

from workers.simulator.exchange import Headers
from workers.simulator.profiles import Near, Profile
from workers.simulator.request import ChatRequest
from workers.simulator.tee.aci_gateway import AciGateway
from workers.simulator.tee.tee import Tee


class NearDirect(Near):
    """A model's own address at NEAR: nobody resolves aliases there."""

    name = "near-direct"
    base_path = "/near-direct/v1"

    @override
    def check(self, headers: Mapping[bytes, bytes], request: ChatRequest) -> None:
        pass


class Aci(Profile):
    """An ACI gateway: plain OpenAI, with a receipt's id in the headers."""

    def __init__(self, name: str, gateway: AciGateway) -> None:
        self.name = name
        self.base_path = f"/{name}/v1"
        self._gateway = gateway

    @override
    def headers(self, call_id: str) -> Headers:
        return self._gateway.headers(call_id)


class Resold(Profile):
    """A node of somebody else's behind a marketplace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.base_path = f"/{name}/v1"


def attested_profiles(tee: Tee) -> tuple[Profile, ...]:
    gateways = (Aci(name, gateway) for name, gateway in tee.aci.items())
    return (NearDirect(), *gateways, Resold("chutes"), Resold("tinfoil"))
