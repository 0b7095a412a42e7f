"""An export: a receipt's document with its evidence beside it, read from a file that nobody trusts."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from shared.attestation.evidence import Evidence
from shared.attestation.factor import NAMES, Factor
from shared.attestation.log_proof import LogProof
from shared.attestation.policy import Policy
from shared.attestation.receipt import FORMAT, digest_of
from shared.attestation.signing import canonical
from shared.attestation.verdict import Label, Reason
from shared.document import DEMOTABLE
from shared.transcript import Digest, Transcript

MAX_BYTES = 128 * 1024 * 1024
"""A hundred times what eight GPUs and their machine have to say."""
MOST_TOLD = 500
"""Characters of a stranger's sentence."""

Kind = Literal["tee", "zdr", "refusal"]


class NotAReceipt(ValueError):
    """The file cannot be read as one."""


class Hash(msgspec.Struct, frozen=True):
    sha256: str = ""
    size: int = 0


class Hashes(msgspec.Struct, frozen=True):
    client_request: Hash = Hash()
    forwarded_request: Hash = Hash()
    upstream_response: Hash = Hash()
    client_response: Hash = Hash()


class Digests(msgspec.Struct, frozen=True):
    """Names of evidence: `sha256:` and hex; empty where there is none."""

    report: str = ""
    collateral: Mapping[str, str] = {}
    nras: str = ""
    nras_keys: str = ""
    signature: str = ""

    @property
    def all(self) -> frozenset[str]:
        named = (self.report, self.nras, self.nras_keys, self.signature, *self.collateral.values())
        return frozenset(one for one in named if one)


class Tls(msgspec.Struct, frozen=True):
    host: str = ""
    spki: str = ""


class NamedRoots(msgspec.Struct, frozen=True):
    name: str = ""
    sha256: str = ""
    synthetic: bool = False


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed, as far as it is judged again. Its members are in docs/receipts.md."""

    format: str = ""
    receipt_id: str
    request_id: str
    kind: Kind = "tee"
    provider: str = ""
    provider_type: str = ""
    model: str = ""
    upstream_model: str = ""
    upstream_id: str = ""
    endpoint: str = ""
    tier: str = ""
    stream: bool = False
    started_at: float = 0.0
    ended_at: float = 0.0
    verified_at: float = 0.0
    label: Label
    reason: Reason = ""
    detail: str = ""
    factors: tuple[Factor, ...] = ()
    policy: Policy = Policy()
    complete: bool = False
    cause: str = ""
    hashes: Hashes = Hashes()
    reserialised_response: str = ""
    nonce: str = ""
    reported_at: float = 0.0
    evidence: Digests = Digests()
    tls: Tls = Tls()
    roots: NamedRoots = NamedRoots()


class Export(msgspec.Struct, frozen=True, kw_only=True):
    signed: Mapping[str, Any]
    """The document as it was written: what the signature is over."""
    document: Document
    texts: Mapping[str, str]
    log: LogProof | None = None

    @property
    def mistaken(self) -> list[str]:
        """Names of texts that are not what their names say."""
        return [name for name, text in self.texts.items() if name != digest_of(text)]

    @property
    def missing(self) -> list[str]:
        return sorted(self.document.evidence.all - self.texts.keys())

    def transcript(self) -> Transcript:
        document = self.document
        return Transcript(
            receipt_id=document.receipt_id, request_id=document.request_id,
            tenant="", user="", config_hash="",
            model=document.model, provider=document.provider,
            provider_type=document.provider_type, upstream_model=document.upstream_model,
            endpoint=document.endpoint, tier=document.tier, streamed=document.stream,
            started_at=document.started_at, ended_at=document.ended_at,
            complete=document.complete, cause=document.cause,
            client_request=_digest(document.hashes.client_request),
            forwarded_request=_digest(document.hashes.forwarded_request),
            upstream_response=_digest(document.hashes.upstream_response),
            client_response=_digest(document.hashes.client_response),
            reserialised_response=document.reserialised_response,
            upstream_id=document.upstream_id,
            tls_host=document.tls.host, tls_spki=document.tls.spki,
        )  # fmt: skip

    def evidence(self) -> Evidence:
        """A text that is not what its name says is as good as none."""
        named, document = self.document.evidence, self.document
        return Evidence(
            nonce=document.nonce,
            report=self._text(named.report),
            reported_at=document.reported_at,
            collateral={key: self._text(name) for key, name in named.collateral.items()},
            nras=self._text(named.nras),
            nras_keys=self._text(named.nras_keys),
            signature=self._text(named.signature),
        )

    def _text(self, name: str) -> str:
        text = self.texts.get(name, "")
        return text if name == digest_of(text) else ""


def read_export(raw: bytes) -> Export:
    """Raises NotAReceipt."""
    whole = _parsed(raw)
    _require_no_error(whole)
    signed, texts = whole.get("receipt"), whole.get("evidence")
    try:
        found = Export(
            signed=msgspec.convert(signed, dict[str, Any]),
            document=_document(signed),
            texts=msgspec.convert({} if texts is None else texts, dict[str, str]),
            log=msgspec.convert(whole.get("log"), LogProof | None),
        )
    except msgspec.ValidationError as error:
        raise NotAReceipt(f"it is not the export of a receipt: {error}") from error
    if found.document.label == "pending":
        raise NotAReceipt("the receipt is pending: ask for it again")
    if found.document.evidence.all and not found.texts:
        raise NotAReceipt("this export has no evidence: ask for it without `evidence=false`")
    return found


def _parsed(raw: bytes) -> Mapping[str, Any]:
    if len(raw) > MAX_BYTES:
        raise NotAReceipt(f"it is larger than {MAX_BYTES} bytes")
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_once)
        canonical(found)  # what has no canonical form cannot be what was signed
    except (ValueError, RecursionError) as error:
        raise NotAReceipt(f"it is not JSON as receipts are: {error}") from error
    if not isinstance(found, dict):
        raise NotAReceipt("it is not a JSON object")
    return found


def _require_no_error(whole: Mapping[str, Any]) -> None:
    """Who saves an answer to a file without a look at its status may have saved a refusal."""
    error = whole.get("error")
    if "receipt" in whole or not isinstance(error, dict):
        return
    told = error.get("message")
    raise NotAReceipt(
        "it is an error that was answered in place of a receipt"
        + (f": {told[:MOST_TOLD]}" if isinstance(told, str) else "")
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers might take different ones of two members of one name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member occurs twice")
    return found


def _document(signed: Any) -> Document:
    document = msgspec.convert(signed, Document)
    if document.format != FORMAT and document.label != "pending":
        raise NotAReceipt(f"its format is not {FORMAT}")
    if any(factor.name not in NAMES for factor in document.factors):
        raise NotAReceipt("it names a factor that is not known")
    if not set(document.policy.demoted) <= set(DEMOTABLE):
        raise NotAReceipt("its policy demotes a factor that always decides")
    return document


def _digest(found: Hash) -> Digest:
    return Digest(found.sha256, found.size)
