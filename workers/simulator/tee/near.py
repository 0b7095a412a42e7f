"""NEAR's reports and signatures: of its gateway, itself a confidential machine, and of a model's own."""

from collections.abc import Mapping

from workers.simulator.tee.classic import (
    Json,
    algorithm_of,
    attestation,
    log_as_text,
    nonce_of,
    signed,
    stranger_of,
)
from workers.simulator.tee.fleet import NEAR_GATEWAY, NEAR_MODEL, Fleet
from workers.simulator.tee.messages import Message
from workers.simulator.tee.node import Node

GATEWAY_FAULTS = ("gateway-debug", "tls-not-attested")
"""Of the gateway's own machine, where there is one."""


class NearGateway:
    """Streams carry its own signature, whole answers that of the model's machine."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json:
        nonce = nonce_of(query)
        gateway = _attested(
            self._gateway(fault), query, nonce, algorithm=algorithm_of(query, "ed25519")
        )
        of_model = _attested(
            self._model(fault), query, nonce, algorithm=algorithm_of(query, "ecdsa")
        )
        return {
            "gateway_attestation": log_as_text(gateway),
            "model_attestations": [{"model_name": model, **of_model}],
        }

    def signature(self, message: Message, query: Mapping[str, str]) -> Json:
        algorithm = algorithm_of(query, "ed25519" if message.streamed else "ecdsa")
        node = self._gateway(message.fault) if message.streamed else self._model(message.fault)
        answer = signed(
            message,
            signer=node.signer(algorithm),
            stranger=stranger_of(self._fleet, algorithm),
            with_model=not message.streamed,
        )
        return {**answer, "signature_kind": "gateway" if message.streamed else "provider_tee"}

    def _gateway(self, fault: str) -> Node:
        return self._fleet.nodes(NEAR_GATEWAY, fault if fault in GATEWAY_FAULTS else "")[0]

    def _model(self, fault: str) -> Node:
        return self._fleet.nodes(NEAR_MODEL, "" if fault in GATEWAY_FAULTS else fault)[0]


class NearDirect:
    """The model's machine answers for itself, TLS included."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json:
        node = self._fleet.nodes(NEAR_MODEL, fault)[0]
        nonce = nonce_of(query)
        members = _attested(node, query, nonce, algorithm=algorithm_of(query, "ecdsa"))
        own = {"model_name": model, **members}
        return {**own, "all_attestations": [own]}

    def signature(self, message: Message, query: Mapping[str, str]) -> Json:
        algorithm = algorithm_of(query, "ecdsa")
        answer = signed(
            message,
            signer=self._fleet.nodes(NEAR_MODEL, message.fault)[0].signer(algorithm),
            stranger=stranger_of(self._fleet, algorithm),
            with_model=True,
        )
        return {**answer, "signature_kind": "provider_tee"}


def _attested(node: Node, query: Mapping[str, str], nonce: bytes, *, algorithm: str) -> Json:
    shows_tls = query.get("include_tls_fingerprint") == "true"
    spki = node.tls_spki if shows_tls else ""
    return attestation(node, algorithm=algorithm, nonce=nonce, tls_spki=spki)
