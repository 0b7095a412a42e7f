"""What ACI gateways have in common: a keyset bound by the quote, receipts under its keys, sessions."""

import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import rfc8785

from shared.clock import Clock
from workers.simulator.tee.classic import (
    OTHER_HASH,
    OTHER_MODEL,
    Json,
    attestation,
    log_as_text,
    nonce_of,
    signed,
    stranger_of,
)
from workers.simulator.tee.fleet import STRANGERS, Fleet, Service
from workers.simulator.tee.gpu import payload
from workers.simulator.tee.messages import Message
from workers.simulator.tee.node import Node, flipped
from workers.simulator.tee.signer import Signer

API_VERSION = "aci/1"
PURPOSE = "aci.report_data.v1"
NOT_AFTER = 4_102_444_800  # 2100: no keyset of these expires
FRESH_SECONDS = 3600
KEPT_SESSIONS = 1000
RECEIPT_PREFIX = "rcpt-"
PROVENANCE = {
    "repo_url": "https://simulator.invalid/gateway",
    "repo_commit": "0" * 40,
    "image_digest": None,
    "image_provenance": None,
}
UNKNOWN = {"status": "unknown"}


class AciGateway(ABC):
    """Its machine signs for every model; a fault of the machine's shows where its report is asked
    for with that model's name."""

    service: Service

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._sessions: dict[str, Json] = {}

    def attestation(self, query: Mapping[str, str], *, fault: str) -> Json:
        """The native report."""
        node = self.node(fault)
        keyset = self.keyset(node)
        nonce = query.get("nonce")
        statement = self.statement(keyset, self._told(nonce, fault))
        bound = hashlib.sha256(canonical(statement)).digest()
        now = int(self._clock.now())
        return {
            "api_version": API_VERSION,
            **self.identity(keyset),
            "workload_keyset_digest": digest(keyset),
            "attestation": {
                "tee_type": "tdx",
                "vendor": "dstack",
                "report_data": self.shown(bound),
                "freshness": {"fetched_at": now, "stale_after": now + FRESH_SECONDS},
                "source_provenance": PROVENANCE,
                "workload_keyset": keyset,
                **self.endorsement(node, keyset),
                "evidence": _evidence(node, bound),
            },
            "all_attestations": [],
            "service_capabilities": {"e2ee": False, "receipts": True},
        }

    def receipt(self, message: Message) -> Json:
        node = self.node(message.fault)
        return self.signed_receipt(node, message, self._unsigned(node, message))

    def session(self, wanted: str) -> Json | None:
        """One that a receipt has named."""
        return self._sessions.get(wanted)

    def _session_of(self, model: str) -> Json:
        """What the gateway says that it verified about a model's own machine."""
        at = int(self._clock.now())
        hour = at - at % FRESH_SECONDS
        names = ("gpu_attested", "os_known_good", "tcb_up_to_date", "tee_attested")
        return {
            "api_version": API_VERSION,
            "upstream_name": f"simulator/{model}",
            "endpoint": "https://upstream.simulator.invalid",
            "verifier_id": "simulator/1",
            "established_at": hour,
            "expires_at": hour + FRESH_SECONDS,
            "channel_binding": [],
            "claims": dict.fromkeys(names, UNKNOWN),
        }

    def headers(self, call_id: str) -> list[tuple[bytes, bytes]]:
        return [(b"x-receipt-id", f"{RECEIPT_PREFIX}{call_id}".encode()), *self._standing]

    @cached_property
    def _standing(self) -> list[tuple[bytes, bytes]]:
        """The same in every answer."""
        keyset = self.keyset(self.node(""))
        named = self.identity(keyset).get("workload_id", keyset.get("subject"))
        return [
            (b"x-aci-identity", str(named).encode()),
            (b"x-aci-keyset-digest", digest(keyset).encode()),
            (b"x-aci-version", API_VERSION.encode()),
            (b"x-e2ee-applied", b"false"),
        ]

    def report(self, query: Mapping[str, str], *, model: str, fault: str) -> Json:  # noqa: ARG002
        """The classic alias, from a quote of its own: without GPUs, in its placeholder's words."""
        asked = dict(query)
        if (nonce := asked.get("nonce")) is not None and len(nonce) != 64:
            asked["nonce"] = hashlib.sha256(nonce.encode()).hexdigest()
        node, own_nonce = self.node(fault), nonce_of(asked)
        members = attestation(node, algorithm="ecdsa", nonce=own_nonce)
        gpus = payload(own_nonce, [])
        return {**log_as_text(members), "nvidia_payload": gpus, "all_attestations": []}

    def signature(self, message: Message, query: Mapping[str, str]) -> Json:  # noqa: ARG002
        """The classic alias of a receipt."""
        return signed(
            message,
            signer=self.alias_signer(self.node(message.fault)),
            stranger=stranger_of(self._fleet, "ecdsa"),
            with_model=False,
        )

    @property
    def stranger(self) -> Node:
        return self._fleet.nodes(STRANGERS)[0]

    def alias_signer(self, node: Node) -> Signer:
        return node.ecdsa

    @abstractmethod
    def keyset(self, node: Node) -> Json: ...

    @abstractmethod
    def identity(self, keyset: Json) -> Json:
        """What names the workload at a document's top, where anything does."""

    @abstractmethod
    def statement(self, keyset: Json, nonce: str | None) -> Json: ...

    @abstractmethod
    def shown(self, bound: bytes) -> str:
        """The report data as the document repeats it."""

    @abstractmethod
    def endorsement(self, node: Node, keyset: Json) -> Json: ...

    @abstractmethod
    def signed_receipt(self, node: Node, message: Message, receipt: Json) -> Json: ...

    @abstractmethod
    def returned(self, message: Message) -> Json: ...

    def _unsigned(self, node: Node, message: Message) -> Json:
        fault = message.fault
        request = "sha256:" + (OTHER_HASH if fault == "wrong-request" else message.request)
        return {
            "api_version": API_VERSION,
            "receipt_id": RECEIPT_PREFIX + message.call_id,
            "chat_id": message.chat_id,
            "model": OTHER_MODEL if fault == "other-model" else message.model,
            "endpoint": "/v1/chat/completions",
            "method": "POST",
            "served_at": int(message.at),
            "workload_keyset_digest": digest(self.keyset(node)),
            "event_log": [
                {"type": "request.received", "body_hash": request},
                {"type": "route.selected", "provider": "simulator"},
                {"type": "request.forwarded", "body_hash": request},
                self._verified(message),
                {"type": "response.received"},
                self.returned(message),
            ],
        }

    def _verified(self, message: Message) -> Json:
        return {
            "type": "upstream.verified",
            "provider": "simulator",
            "model_id": message.model,
            "result": "verified",
            "required": True,
            "session_id": self._named_session(message.model),
            "channel_bindings": [],
            "claims": {},
        }

    def _named_session(self, model: str) -> str:
        session = self._session_of(model)
        named = hashlib.sha256(canonical(session)).hexdigest()
        if len(self._sessions) >= KEPT_SESSIONS:
            self._sessions.clear()
        self._sessions[named] = session
        return named

    def node(self, fault: str) -> Node:
        return self._fleet.nodes(self.service, fault)[0]

    def _told(self, nonce: str | None, fault: str) -> str | None:
        if fault == "foreign-nonce":
            return secrets.token_hex(32)
        return "00" * 32 if fault == "stale-report" else nonce


def canonical(document: object) -> bytes:
    """RFC 8785."""
    return rfc8785.dumps(cast("Any", document))


def digest(document: object) -> str:
    """`sha256:` and the digest of its canonical form."""
    return "sha256:" + hashlib.sha256(canonical(document)).hexdigest()


def _evidence(node: Node, bound: bytes) -> Json:
    report_data = bound + bytes(32)
    log = {} if node.fault == "no-event-log" else {"event_log": node.shown_log}
    return {
        "quote": node.quote(report_data).hex(),
        "quote_report_data": report_data.hex(),
        **log,
        "vm_config": node.vm_config,
        "app_compose": node.shown_compose,
        "key_custody": {"provider": "simulator"},
    }


def response_of(message: Message) -> str:
    return "sha256:" + (OTHER_HASH if message.fault == "wrong-response" else message.response)


def spoilt(signature: str, fault: str) -> str:
    if fault == "signature-garbage":
        return "nothing"
    return flipped(bytes.fromhex(signature), 5).hex() if fault == "wrong-signature" else signature


def tls_keys(node: Node) -> list[Json]:
    return [{"domain": "localhost", "spki_sha256": node.tls_spki}] if node.tls_spki else []
