"""Reports of minted machines, in every shape, and sessions examined under the minted roots."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import rfc8785

from shared.attestation.evidence import Evidence
from shared.attestation.factor import DECIDING, OF_A_MESSAGE
from shared.attestation.policy import Policy
from shared.attestation.session import Session, examine
from workers.simulator.tee.collateral import State, collateral
from workers.simulator.tee.event_log import Event, boot_log, replayed
from workers.simulator.tee.gpu import Gpu, payload
from workers.simulator.tee.nras import Nras, Payload
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.quote import Measurements, Platform

NOW = 1_790_000_000.0
NONCE = "5a" * 32
FMSPC = "90C06F000000"
KEY = f"{FMSPC}/platform"
SPKI = "c7" * 32
SIGNER, GATEWAY_SIGNER, OTHER_SIGNER = "11" * 20, "22" * 32, "33" * 20
MODEL = "maker/model"
OF_SESSIONS = tuple(one for one in DECIDING if one not in OF_A_MESSAGE)
NOT_HERE = ("signer_history",)
"""It needs the session before."""
OPEN = dict.fromkeys(("compose_known", "os_image_known", "image_provenance"), "unknown")
PASSING = {**dict.fromkeys(OF_SESSIONS, "pass"), **OPEN, "trust_root": "pass"}
DIRECT = {**PASSING, "gateway_attested": "skip"}

RECEIPT_KEY = {"key_id": "receipt-1", "algo": "ed25519", "public_key": "ab" * 32}
COMPOSE = json.dumps(
    {
        "runner": "docker-compose",
        "docker_compose_file": f"services:\n  a:\n    image: a@sha256:{'0' * 64}\n  b:\n    image: b:1\n",
    }
)


@cache
def pki() -> Pki:
    return Pki.mint(NOW)


@cache
def platform() -> Platform:
    return Platform(pki(), FMSPC)


@cache
def gpu_payload(nonce: str = NONCE, count: int = 2) -> str:
    gpus = [Gpu(pki(), f"GPU-{n}") for n in range(count)]
    raw = bytes.fromhex(nonce)
    return payload(raw, [one.evidence(raw) for one in gpus])


@cache
def collateral_text(tcb: str = "UpToDate") -> str:
    return collateral(pki(), FMSPC, State(tcb=tcb), now=NOW).to_json()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`report_data`: where it is not what it should be."""

    signer: str = SIGNER
    compose: str = COMPOSE
    measured_compose: str = COMPOSE
    tls_spki: str = ""
    nonce: str = NONCE
    debug: bool = False
    config_id: bytes | None = None
    earlier: tuple[Event, ...] = ()
    later: tuple[Event, ...] = ()
    """Than the machine was ready."""
    report_data: bytes = b""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """Members that are shown in place of its own; None: not at all."""

    @property
    def compose_hash(self) -> bytes:
        return hashlib.sha256(self.measured_compose.encode()).digest()

    @property
    def log(self) -> tuple[Event, ...]:
        booted = boot_log(name="a", compose_hash=self.compose_hash, os_image_hash=b"\x05" * 32)
        return (*booted[:-1], *self.earlier, booted[-1], *self.later)

    @property
    def events(self) -> list[dict[str, object]]:
        return [dict(event.shown()) for event in self.log]

    def quote(self, report_data: bytes) -> bytes:
        config_id = b"\1" + self.compose_hash + bytes(15)
        measured = Measurements(
            mr_td=b"\x07" * 48,
            mr_config_id=config_id if self.config_id is None else self.config_id,
            rtmrs=replayed(self.log),
            debug=self.debug,
        )
        return platform().quote(measured, self.report_data or report_data)

    def document(self) -> dict[str, Any]:
        """Of NEAR's and of the classic form."""
        signer = bytes.fromhex(self.signer)
        first = signer.ljust(32, b"\0")
        if self.tls_spki:
            first = hashlib.sha256(signer + bytes.fromhex(self.tls_spki)).digest()
        document = {
            "signing_address": "0x" + self.signer if len(signer) == 20 else self.signer,
            "signing_algo": "ecdsa" if len(signer) == 20 else "ed25519",
            "intel_quote": self.quote(first + bytes.fromhex(self.nonce)).hex(),
            "nvidia_payload": gpu_payload(),
            "event_log": self.events,
            "info": {"tcb_info": {"app_compose": self.compose}},
            **({"tls_cert_fingerprint": self.tls_spki} if self.tls_spki else {}),
            **self.shown,
        }
        return {name: value for name, value in document.items() if value is not None}


def near_direct(machine: Machine = Machine(), **members: Any) -> dict[str, Any]:
    return {"model_name": MODEL, **machine.document(), **members}


def vllm_proxy(*machines: Machine) -> dict[str, Any]:
    shown = [one.document() for one in machines or (Machine(),)]
    return {**shown[0], "all_attestations": shown}


def near_gateway(
    *models: Machine, gateway: Machine | None = Machine(signer=GATEWAY_SIGNER)
) -> dict[str, Any]:
    attested = [{"model_name": MODEL, **one.document()} for one in models or (Machine(),)]
    report: dict[str, Any] = {"model_attestations": attested}
    if gateway:
        own = gateway.document()
        own.pop("nvidia_payload")
        report["gateway_attestation"] = {**own, "event_log": json.dumps(own["event_log"])}
    return report


def keyset(*keys: Mapping[str, str], tls: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    return {
        "receipt_signing_keys": list(keys or (RECEIPT_KEY,)),
        "tls_public_keys": [{"domain": domain, "spki_sha256": spki} for domain, spki in tls],
        "subject": "dstack-app://example",
    }


def aci(
    generation: str, machine: Machine = Machine(), *, nonce: str | None = NONCE, **members: Any
) -> dict[str, Any]:
    """`members`: of the attestation, in place of its own."""
    keys = members.get("workload_keyset", keyset())
    digest = "sha256:" + hashlib.sha256(rfc8785.dumps(keys)).hexdigest()
    statement: dict[str, Any] = {"nonce": nonce, "purpose": "aci.report_data.v1"}
    identity = {"workload_id": "sha256:" + "ef" * 32} if generation == "b" else {}
    statement |= identity
    statement["workload_keyset_digest" if identity else "keyset_digest"] = digest
    data = hashlib.sha256(rfc8785.dumps(statement)).digest() + bytes(32)
    return {
        "api_version": "aci/1",
        **identity,
        "workload_keyset_digest": digest,
        "attestation": {
            "workload_keyset": keys,
            "evidence": {
                "quote": machine.quote(data).hex(),
                "event_log": json.dumps(machine.events),
                **machine.shown,
            },
            **members,
        },
    }


def chutes(machine: Machine = Machine()) -> dict[str, Any]:
    """Honest: under a nonce of the server's."""
    nonce, key = "0f" * 32, "an encryption key"
    bound = hashlib.sha256((nonce + key).encode()).digest()
    node = {
        "instance_id": "1",
        "nonce": nonce,
        "e2e_pubkey": key,
        "intel_quote": base64.b64encode(machine.quote(bound + bytes(32))).decode(),
        "gpu_evidence": json.loads(gpu_payload(bound.hex()))["evidence_list"],
    }
    return {"attestation_type": "chutes", "nonce": nonce, "all_attestations": [node]}


def tinfoil(machine: Machine = Machine()) -> dict[str, Any]:
    quote = machine.quote(bytes.fromhex(SPKI) + b"\x09" * 32)
    return {"attestation_type": "tinfoil", "intel_quote": quote.hex()}


@cache
def nras(nvidia_payload: str) -> tuple[str, str]:
    service = Nras(pki())
    request = msgspec.json.decode(nvidia_payload, type=Payload)
    answer, keys = service.attest(request, now=NOW), service.keys()
    return json.dumps(answer), json.dumps(keys)


def evidence(report: object, **changes: Any) -> Evidence:
    answer, keys = nras(gpu_payload())
    whole = Evidence(
        nonce=NONCE,
        report=report if isinstance(report, str) else json.dumps(report),
        reported_at=NOW - 60,
        collateral={KEY: collateral_text()},
        nras=answer,
        nras_keys=keys,
    )
    return msgspec.structs.replace(whole, **changes)


def examined(report: object, *, signer: str = "", **options: Any) -> Session:
    """`options`: of `examine`, or members of the evidence."""
    asked = {"policy": Policy(), "roots": pki().roots, "now": NOW, "upstream_model": MODEL}
    asked |= {name: options.pop(name) for name in (*asked, "began_at") if name in options}
    return examine(evidence(report, **options), signer=signer, **asked)  # type: ignore[arg-type]


def statuses(session: Session) -> dict[str, str]:
    return {one.name: one.status for one in session.factors}


def details(session: Session) -> dict[str, str]:
    return {one.name: one.detail for one in session.factors}
