"""ACI receipts: what an attested gateway signs of a call, in the form of generation B or C."""

from collections.abc import Mapping

import msgspec
import rfc8785

from shared.attestation.claim import Claim, check_claim
from shared.attestation.factor import Factor, failed, passed, unknown
from shared.attestation.forms import MAX_SIGNATURE_CHARACTERS, digits, items, mapping, text, whole
from shared.attestation.session import Session
from shared.attestation.signer import is_recovered, is_signed_by
from shared.transcript import Transcript

API_VERSION = "aci/1"
ED25519, SECP256K1 = "ed25519", "ecdsa-secp256k1"
_PREFIX = "sha256:"


class Seal(msgspec.Struct, frozen=True):
    """The signature of a receipt, and the bytes it is over."""

    key_id: str
    algorithm: str
    value: bytes
    signed: bytes


def read_receipt(receipt: str) -> Mapping[str, object]:
    """Empty where the text is no ACI receipt, or too long."""
    document = whole(receipt, MAX_SIGNATURE_CHARACTERS)
    is_one = document.get("api_version") == API_VERSION and "event_log" in document
    return document if is_one else {}


def check_receipt(transcript: Transcript, receipt: str, session: Session) -> list[Factor]:
    """request_hash, response_hash, signature_valid, signature_model and signature_scope."""
    document = read_receipt(receipt)
    return [
        *check_claim(_claim(document), transcript),
        _signature(document, session),
        _scope(document),
    ]


def _claim(document: Mapping[str, object]) -> Claim:
    """The gateway's request is the one we sent; its answer the one we read."""
    returned = _event(document, "response.returned")
    model = document.get("model")
    return Claim(
        _digest(_event(document, "request.received").get("body_hash")),
        _digest(returned.get("wire_hash", returned.get("body_hash"))),
        model if isinstance(model, str) else None,
    )


def _event(document: Mapping[str, object], kind: str) -> Mapping[str, object]:
    """The only one of its type; empty where there are several, or none."""
    found = [
        one for one in map(mapping, items(document.get("event_log"))) if one.get("type") == kind
    ]
    return found[0] if len(found) == 1 else {}


def _digest(value: object) -> str:
    found = text(value)
    return found.removeprefix(_PREFIX) if found.startswith(_PREFIX) else ""


def _signature(document: Mapping[str, object], session: Session) -> Factor:
    if not session.shape:
        return unknown("signature_valid", "signature", "no report names the keys of receipts")
    seal = _seal(document)
    if seal is None:
        return failed("signature_valid", "signature", "the receipt has no signature")
    algorithm, key = session.receipt_keys.get(seal.key_id, ("", ""))
    if not key:
        return failed("signature_valid", "signature", "its key is not among the attested ones")
    if algorithm != seal.algorithm:
        return failed("signature_valid", "signature", "it is not signed as its key signs")
    if not _is_sealed(seal, digits(key)):
        return failed("signature_valid", "signature", "it is not signed by its key")
    return passed("signature_valid", "signature", f"{algorithm}, by an attested key")


def _seal(document: Mapping[str, object]) -> Seal | None:
    """C: hex, with the id of its key beside it. B: an object, of which all but the value is signed."""
    given = document.get("signature")
    rest = {name: value for name, value in document.items() if name != "signature"}
    if isinstance(given, str):
        stamp: Mapping[str, object] = {
            "key_id": document.get("key_id"), "algo": ED25519, "value": given
        }  # fmt: skip
    elif isinstance(given, dict):
        stamp = given
        rest["signature"] = {name: one for name, one in given.items() if name != "value"}
    else:
        return None
    try:
        signed = rfc8785.dumps(rest)  # type: ignore[arg-type]
    except (ValueError, RecursionError):
        return None
    value = bytes.fromhex(digits(stamp.get("value")))
    return Seal(text(stamp.get("key_id")), text(stamp.get("algo")), value, signed)


def _is_sealed(seal: Seal, key: str) -> bool:
    checks = {ED25519: is_signed_by, SECP256K1: is_recovered}
    check = checks.get(seal.algorithm)
    return check is not None and check(bytes.fromhex(key), seal.signed, seal.value)


def _scope(document: Mapping[str, object]) -> Factor:
    """It is the gateway's own word that the machine behind it was verified."""
    events = [mapping(one) for one in items(document.get("event_log"))]
    results = {text(one.get("result")) for one in events if one.get("type") == "upstream.verified"}
    if results - {"verified"}:
        why = "the gateway could not verify the machine behind it"
        return failed("signature_scope", "signature", why)
    told = "says it verified" if results else "does not say that it verified"
    return passed("signature_scope", "signature", f"gateway: it {told} the machine behind it")
