"""Whole calls on simulated confidential machines, with their evidence, minted without a server."""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import dcap_qvl
import msgspec

from shared.attestation.evidence import Evidence
from shared.attestation.roots import Roots
from shared.clock import StillClock
from shared.transcript import Digest, Transcript
from workers.simulator.tee.faults import kind_of, state_of
from workers.simulator.tee.nras import Payload, vice_of
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.tee import Tee

NOW = 1_790_000_000.0
NONCE = hashlib.sha256(b"ours").hexdigest()
REQUEST = b'{"model":"sim/chat","messages":[{"role":"user","content":"hello"}]}'
WHOLE = '{"id":"chatcmpl-sim-1","choices":[{"message":{"content":"h\u00e9llo"}}]}'.encode()
STREAM = b'data: {"id":"chatcmpl-sim-1"}\n\ndata: [DONE]\n\n'
CALL_ID = "1"
CHAT_ID = f"chatcmpl-sim-{CALL_ID}"


def tee(*, ends_tls: bool = False) -> Tee:
    """One for all tests: its clock stands still."""
    return _tee(ends_tls)


@cache
def _tee(ends_tls: bool) -> Tee:
    return Tee(Pki.mint(NOW), StillClock(NOW), ends_tls=ends_tls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """What a verifier is given about one call."""

    transcript: Transcript
    evidence: Evidence
    roots: Roots
    now: float = NOW


def minted(
    profile: str = "near-direct",
    *,
    model: str = "sim/chat",
    streamed: bool = False,
    algorithm: str = "ecdsa",
    ends_tls: bool = False,
    nonce: str = NONCE,
) -> Minted:
    """`model` names a fault, as it does over HTTP."""
    source = tee(ends_tls=ends_tls)
    response = STREAM if streamed else WHOLE
    if (tap := source.tap(profile, model)) is not None:
        tap.update(response)
        source.messages.note(
            profile=profile, call_id=CALL_ID, chat_id=CHAT_ID, model=model, body=REQUEST, tap=tap,
            streamed=streamed,
        )  # fmt: skip
    query = {"model": model, "nonce": nonce, "signing_algo": algorithm}
    query |= {"include_tls_fingerprint": "true"}
    signature = signature_of(source, profile, query)
    if profile == "phala" and signature:
        query |= {"signing_address": json.loads(signature)["signing_address"], "version": "2"}
    report = report_of(source, profile, query, model)
    nras = nras_of(source, report)
    return Minted(
        transcript=transcript(
            source, profile=profile, model=model, response=response, streamed=streamed
        ),
        evidence=Evidence(
            nonce=nonce,
            report=report,
            reported_at=NOW,
            collateral=collateral_of(source, report),
            nras=nras,
            nras_keys=text(source.nvidia.nras.keys()) if nras else "",
            signature=signature,
        ),
        roots=source.pki.roots,
    )


def transcript(
    source: Tee, *, profile: str, model: str, response: bytes, streamed: bool
) -> Transcript:
    """`reserialised_response` is set for whole answers, as a worker does for vllm-proxy."""
    dumped = "" if streamed else json.dumps(json.loads(response))
    spki = source.pki.tls_spki_sha256 if source.ends_tls else ""
    return Transcript(
        receipt_id="0" * 32,
        request_id="1" * 32,
        tenant="acme",
        user="ada",
        model="simulated",
        provider="simulator",
        provider_type="near" if profile.startswith("near") else "phala",
        upstream_model=model,
        config_hash="c",
        endpoint="chat.completions",
        tier="TEE",
        streamed=streamed,
        started_at=NOW,
        ended_at=NOW,
        complete=True,
        client_request=digest(REQUEST),
        forwarded_request=digest(REQUEST),
        upstream_response=digest(response),
        client_response=digest(response),
        reserialised_response=hashlib.sha256(dumped.encode()).hexdigest() if dumped else "",
        upstream_id=CHAT_ID,
        tls_host="localhost",
        tls_spki=spki,
    )


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def text(document: object) -> str:
    return msgspec.json.encode(document).decode()


def signature_of(source: Tee, profile: str, query: dict[str, str]) -> str:
    """Empty where nobody signs. ACI's is the native receipt."""
    message = source.messages.find(profile, CHAT_ID)
    if message is None:
        return ""
    if profile in source.aci:
        return text(source.aci[profile].receipt(message))
    return text(source.signatories[profile].signature(message, query))


def report_of(source: Tee, profile: str, query: dict[str, str], model: str) -> str:
    if profile in source.aci:
        return text(
            source.aci[profile].attestation({"nonce": query["nonce"]}, fault=kind_of(model) or "")
        )
    return source.report(profile, query, model=model).decode()


def quotes_in(report: str) -> list[bytes]:
    """Of every form, wherever they are."""
    found: list[bytes] = []
    _walk(json.loads(report), found)
    return found


def _walk(node: Any, found: list[bytes]) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("intel_quote", "quote") and isinstance(value, str):
                found.append(_decoded(value))
            else:
                _walk(value, found)
    elif isinstance(node, list):
        for value in node:
            _walk(value, found)


def _decoded(value: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        return base64.b64decode(value)


def collateral_of(source: Tee, report: str) -> dict[str, str]:
    """As a PCCS gives it, for every platform in the report that it knows."""
    kept = {}
    for quote in quotes_in(report):
        fmspc = dcap_qvl.parse_quote(quote).fmspc()
        state = state_of(fmspc)
        if state is not None:
            kept[f"{fmspc}/platform"] = source.intel.collateral(fmspc, state).to_json()
    return kept


def nras_of(source: Tee, report: str) -> str:
    payload = _payload(json.loads(report))
    if payload is None or (vice := vice_of(payload)) == "nras-away":
        return ""
    return text(source.nvidia.nras.attest(payload, now=NOW, vice=vice))


def _payload(report: Any) -> Payload | None:
    for holder in (report, *report.get("model_attestations", [])):
        if holder.get("nvidia_payload"):
            return msgspec.json.decode(holder["nvidia_payload"], type=Payload)
    return None
