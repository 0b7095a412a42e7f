"""The simulated nodes: for every service and every fault its own, made when first asked for."""

import hashlib
import secrets
from dataclasses import dataclass

from workers.simulator.tee.faults import SESSION_FAULTS
from workers.simulator.tee.node import Node, platform
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.quote import Platform

SALT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What nodes are of."""

    name: str
    nodes: int = 1
    gpus: int = 1
    outlives_boot: bool = True
    """Its signers come from a key service; else they are made at random when it starts."""


NEAR_GATEWAY = Service(name="near-gateway", gpus=0)
NEAR_MODEL = Service(name="near-model", gpus=8)
VLLM_PROXY = Service(name="vllm-proxy", nodes=3, outlives_boot=False)
ACI_B = Service(name="aci-b", gpus=0)
ACI_C = Service(name="aci-c", gpus=0)
CHUTES = Service(name="chutes", nodes=2)
TINFOIL = Service(name="tinfoil")
STRANGERS = Service(name="strangers", gpus=0)
"""Whose reports nobody serves."""


class Fleet:
    """Bounded: there are as many nodes as services and faults."""

    def __init__(self, pki: Pki, *, ends_tls: bool) -> None:
        self.pki = pki
        self._tls_spki = pki.tls_spki_sha256 if ends_tls else ""
        self._boot = secrets.token_bytes(SALT_BYTES)
        self._nodes: dict[tuple[str, str], tuple[Node, ...]] = {}
        self._platforms: dict[str, Platform] = {}

    def nodes(self, service: Service, fault: str = "") -> tuple[Node, ...]:
        """Faults that are not the machine's own have nodes of their own too, honest ones."""
        key = service.name, fault
        if key not in self._nodes:
            made = range(service.nodes)
            self._nodes[key] = tuple(self._made(service, fault, n) for n in made)
        return self._nodes[key]

    def serving(self, service: Service, fault: str, call_id: str) -> Node:
        """Which of them a call is served by."""
        nodes = self.nodes(service, fault)
        return nodes[hashlib.sha256(call_id.encode()).digest()[0] % len(nodes)]

    def beside(self, service: Service, address: str) -> tuple[Node, ...]:
        """The node whose signer it is, then those beside it; none where nobody knows it.

        A node is known once anything was asked of it: an address tells nothing of itself.
        """
        wanted = _bare(address)
        for (name, _), nodes in self._nodes.items():
            found = [node for node in nodes if name == service.name and wanted in _addresses(node)]
            if found:
                return (*found, *(node for node in nodes if node is not found[0]))
        return ()

    def _made(self, service: Service, fault: str, number: int) -> Node:
        own_fault = fault if fault in SESSION_FAULTS else ""
        return Node(
            self.pki,
            service=service.name,
            name=f"{service.name}-{fault or 'honest'}-{number + 1}",
            platform=self._platform(own_fault),
            gpus=service.gpus,
            fault=own_fault,
            salt=b"" if service.outlives_boot else self._boot,
            tls_spki=self._tls_spki,
        )

    def _platform(self, fault: str) -> Platform:
        if fault not in self._platforms:
            self._platforms[fault] = platform(self.pki, fault)
        return self._platforms[fault]


def _addresses(node: Node) -> tuple[str, str]:
    return _bare(node.ecdsa.address), _bare(node.ed25519.address)


def _bare(address: str) -> str:
    return address.lower().removeprefix("0x")
