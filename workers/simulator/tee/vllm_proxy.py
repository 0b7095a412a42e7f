"""Reports and signatures of generation A: several nodes behind one address, each with its own key."""

import json
from collections.abc import Mapping

from workers.simulator.problems import Refused
from workers.simulator.tee.classic import (
    Json,
    algorithm_of,
    attestation,
    log_as_text,
    nonce_of,
    signed,
    stranger_of,
)
from workers.simulator.tee.fleet import VLLM_PROXY, Fleet
from workers.simulator.tee.messages import Message
from workers.simulator.tee.node import Node

WITH_TLS = "2"


class VllmProxy:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json:  # noqa: ARG002
        """Of the node whose signer was named, or of whichever answers; and of all the others."""
        address = query.get("signing_address", "")
        nodes = self._fleet.beside(VLLM_PROXY, address) if address else ()
        if address and not nodes and "model" not in query:
            raise Refused(404, "No such signing address.", param="signing_address")
        # Where nobody has that signer, whichever node the call reaches speaks for itself.
        nodes = nodes or self._fleet.nodes(VLLM_PROXY, fault)
        shown = [_attested(node, query) for node in nodes]
        return {**shown[0], "all_attestations": shown}

    def signature(self, message: Message, query: Mapping[str, str]) -> Json:
        algorithm = algorithm_of(query, "ecdsa")
        return signed(
            message,
            signer=self._fleet.serving(VLLM_PROXY, message.fault, message.call_id).signer(
                algorithm
            ),
            stranger=stranger_of(self._fleet, algorithm),
            with_model=False,
        )


def _attested(node: Node, query: Mapping[str, str]) -> Json:
    spki = node.tls_spki if query.get("version") == WITH_TLS else ""
    members = attestation(
        node, algorithm=algorithm_of(query, "ecdsa"), nonce=nonce_of(query), tls_spki=spki
    )
    info = dict(node_info) if isinstance(node_info := members["info"], Mapping) else {}
    return {
        **log_as_text(members),
        "info": {**info, "tcb_info": json.dumps(info["tcb_info"])},
        "quote": members["intel_quote"],
        "vm_config": node.vm_config,
    }
