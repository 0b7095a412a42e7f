"""An attestation report: every provider's form of it as one. What it says are claims, no facts."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from shared.attestation.forms import (
    MAX_REPORT_CHARACTERS,
    digits,
    items,
    mapping,
    octets,
    text,
    whole,
)
from shared.document import ReportShape

Shape = ReportShape
Scope = Literal["model", "gateway"]

MAX_ATTESTATIONS = 64
"""Of one report: more nodes than one model has had."""
MAX_QUOTE_BYTES = 64 * 1024
"""Twelve times the largest that was seen."""
ONLY_NEAR = ("model_name", "compose_manager_attestation", "ohttp_key_config", "ohttp_attestation")


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """Of one machine, as it was served. Empty: not told, or not readable."""

    signer: str = ""
    """Lowercase hex without `0x`: an address (ecdsa) or a public key (ed25519)."""
    algorithm: str = ""
    model: str = ""
    quote: bytes = b""
    event_log: tuple[object, ...] | None = None
    """Its entries, of any form."""
    nvidia_payload: str = ""
    app_compose: str = ""
    image: str = ""
    """What the machine's configuration calls its operating system."""
    tls_spki: str = ""
    workload_id: str = ""
    keyset: Mapping[str, object] | None = None
    receipt_keys: Mapping[str, tuple[str, str]] = {}
    """Algorithm and public key, by key id."""
    tls_keys: Mapping[str, str] = {}
    """SPKI digests by domain."""
    server_nonce: str = ""
    encryption_key: str = ""
    """With `server_nonce`: what Chutes binds."""


class Report(msgspec.Struct, frozen=True):
    shape: Shape
    attestations: tuple[Attestation, ...] = ()
    """Of the machines that models run in; of an ACI gateway, its own."""
    gateway: Attestation | None = None

    @property
    def scope(self) -> Scope:
        """Where a message was signed, unless it says so itself."""
        return "gateway" if self.shape in ("near-gateway", "aci-b", "aci-c") else "model"

    @property
    def all(self) -> tuple[Attestation, ...]:
        return (*self.attestations, self.gateway) if self.gateway else self.attestations


def read_report(report: str) -> Report | None:
    """None where it has none of the known shapes, or is too long. The shape is told by members, never
    by the host."""
    document = whole(report, MAX_REPORT_CHARACTERS)
    kind = document.get("attestation_type")
    if kind == "chutes":
        return Report("chutes", _each(document.get("all_attestations"), document))
    if kind == "tinfoil":
        return Report("tinfoil", (_machine(document),))
    if "gateway_attestation" in document or "model_attestations" in document:
        return _near_gateway(document)
    if document.get("api_version") == "aci/1":
        return _aci(document)
    if "signing_address" in document or "intel_quote" in document:
        return _direct(document)
    return None


def _near_gateway(document: Mapping[str, object]) -> Report:
    gateway = mapping(document.get("gateway_attestation"))
    models = _each(document.get("model_attestations"), {})
    return Report("near-gateway", models, _machine(gateway) if gateway else None)


def _direct(document: Mapping[str, object]) -> Report:
    """The proxy in the model's own machine, NEAR's or dstack's: told apart by what one alone has."""
    shape: Shape = "near-direct" if any(one in document for one in ONLY_NEAR) else "vllm-proxy"
    others = _each(document.get("all_attestations"), {})
    return Report(shape, (_machine(document), *others)[:MAX_ATTESTATIONS])


def _aci(document: Mapping[str, object]) -> Report:
    shape: Shape = "aci-b" if "workload_id" in document else "aci-c"
    others = [mapping(one) for one in items(document.get("all_attestations"))]
    found = [document, *(one for one in others if "attestation" in one)]
    return Report(shape, tuple(_workload(one) for one in found[:MAX_ATTESTATIONS]))


def _each(value: object, shared: Mapping[str, object]) -> tuple[Attestation, ...]:
    """`shared`: members of the report that each of them has."""
    outer = {"nonce": shared["nonce"]} if "nonce" in shared else {}
    found = [mapping(one) for one in items(value)[:MAX_ATTESTATIONS]]
    return tuple(_machine({**outer, **one}) for one in found if one)


def _machine(document: Mapping[str, object]) -> Attestation:
    info = mapping(document.get("info"))
    tcb = mapping(info.get("tcb_info"))
    return Attestation(
        signer=digits(document.get("signing_address")),
        algorithm=text(document.get("signing_algo")).lower(),
        model=text(document.get("model_name")),
        quote=_quote(document.get("intel_quote") or document.get("quote")),
        event_log=_events(document.get("event_log"), tcb.get("event_log")),
        nvidia_payload=_payload(document),
        app_compose=text(tcb.get("app_compose")) or text(document.get("app_compose")),
        image=_image(document.get("vm_config") or info.get("vm_config")),
        tls_spki=digits(document.get("tls_cert_fingerprint")),
        server_nonce=text(document.get("nonce")),
        encryption_key=text(document.get("e2e_pubkey")),
    )


def _workload(document: Mapping[str, object]) -> Attestation:
    """Of an ACI gateway. The classic form of the same report also names a signer."""
    attestation = mapping(document.get("attestation"))
    evidence, keyset = (mapping(attestation.get(one)) for one in ("evidence", "workload_keyset"))
    return Attestation(
        signer=digits(document.get("signing_address")),
        algorithm=text(document.get("signing_algo")).lower(),
        quote=_quote(document.get("intel_quote") or evidence.get("quote")),
        event_log=_events(evidence.get("event_log")),
        nvidia_payload=_payload(document),
        app_compose=text(evidence.get("app_compose")),
        image=_image(evidence.get("vm_config")),
        workload_id=text(document.get("workload_id")),
        keyset=keyset or None,
        receipt_keys=_receipt_keys(keyset),
        tls_keys=_tls_keys(keyset),
    )


def _quote(value: object) -> bytes:
    found = octets(value)
    return found if len(found) <= MAX_QUOTE_BYTES else b""


def _events(*values: object) -> tuple[object, ...] | None:
    """Of the first log that has any; None where none was served."""
    return next((found for one in values if (found := items(one))), None)


def _payload(document: Mapping[str, object]) -> str:
    """As NVIDIA's service takes it."""
    value = document.get("nvidia_payload")
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if (devices := document.get("gpu_evidence")) is None:
        return text(value)
    request = {"nonce": document.get("nonce"), "evidence_list": devices}
    return msgspec.json.encode(request).decode()


def _image(vm_config: object) -> str:
    return text(mapping(vm_config).get("image"))


def _receipt_keys(keyset: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    found = [mapping(one) for one in items(keyset.get("receipt_signing_keys"))]
    return {
        text(one.get("key_id")): (text(one.get("algo")), digits(one.get("public_key")))
        for one in found
    }


def _tls_keys(keyset: Mapping[str, object]) -> dict[str, str]:
    found = [mapping(one) for one in items(keyset.get("tls_public_keys"))]
    return {text(one.get("domain")): digits(one.get("spki_sha256")) for one in found}
