"""A message's signature: that attested hardware signed this request and this answer."""

import msgspec

from shared.attestation.aci import check_receipt, read_receipt
from shared.attestation.claim import Claim, check_claim
from shared.attestation.factor import (
    OF_A_SIGNATURE,
    Factor,
    failed,
    passed,
    skipped,
    unknown,
)
from shared.attestation.forms import MAX_SIGNATURE_CHARACTERS, digits, text, whole
from shared.attestation.policy import Policy
from shared.attestation.session import Session
from shared.attestation.signer import ADDRESS_SIZE, KEY_SIZE, address_of, is_signed_by
from shared.transcript import Transcript

BY_MODEL, BY_GATEWAY = "provider_tee", "gateway"
_ALGORITHM_OF = {ADDRESS_SIZE: "ecdsa", KEY_SIZE: "ed25519"}


class MessageSignature(msgspec.Struct, frozen=True, kw_only=True):
    text: str = ""
    signature: str = ""
    """Lowercase hex without `0x`, as is the signer: an address (ecdsa) or a key (ed25519)."""
    signer: str = ""
    algorithm: str = ""
    kind: str = ""
    """`provider_tee` or `gateway`, as the provider says; empty: it does not."""
    error_code: str = ""
    """Why there is no signature, as the provider says."""


def read_signature(answer: str) -> MessageSignature | None:
    """None where it is no answer about a signature, or too long; an ACI receipt is none."""
    document = whole(answer, MAX_SIGNATURE_CHARACTERS)
    if document.get("error_code") or document.get("error"):
        return MessageSignature(error_code=text(document.get("error_code")) or "error")
    if not isinstance(document.get("text"), str):
        return None
    signer = digits(document.get("signing_address"))
    named = text(document.get("signing_algo")).lower()
    return MessageSignature(
        text=text(document["text"]),
        signature=digits(document.get("signature")),
        signer=signer,
        algorithm=named or _ALGORITHM_OF.get(len(signer) // 2, ""),
        kind=text(document.get("signature_kind")),
    )


def check_message(
    transcript: Transcript, signature: str, session: Session, *, policy: Policy
) -> list[Factor]:
    """request_hash, response_hash, signature_valid, signature_model, signature_scope, tls_pinned."""
    pinned = _pinned(transcript, session, policy)
    if read_receipt(signature):
        return [*check_receipt(transcript, signature, session), pinned]
    message = read_signature(signature)
    if message is None and signature:
        why = "what the provider answered is no signature"
        return [failed("signature_valid", "signature", why), *_open(why), pinned]
    if message is None or message.error_code:
        why = f"the provider has none: {_known(message)}" if message else "it is not there"
        return [unknown("signature_valid", "signature", why), *_open(why), pinned]
    return [
        *check_claim(_claim(message), transcript),
        _valid(message, session),
        _scope(message, session),
        pinned,
    ]


def is_gateway_scope(signature: str, session: Session) -> bool:
    """Whether a gateway's machine signed. Where nobody says, the endpoint that was asked decides."""
    message = read_signature(signature)
    return _by_gateway(message.kind if message else "", session)


def _by_gateway(kind: str, session: Session) -> bool:
    """Only the report that has both kinds of machines lets a message say which of them signed it."""
    if session.is_gateway_signer or kind not in ("", BY_MODEL):
        return True
    is_said = kind == BY_MODEL and session.shape == "near-gateway"
    return session.scope == "gateway" and not is_said


def _open(why: str) -> list[Factor]:
    """All but signature_valid."""
    names = [name for name in OF_A_SIGNATURE if name != "signature_valid"]
    return [unknown(name, "signature", why) for name in names]


def _known(message: MessageSignature) -> str:
    """Its code, where it is one of those that are documented."""
    documented = ("STREAM_DISCONNECTED", "SIGNATURE_UNSUPPORTED")
    return message.error_code if message.error_code in documented else "an error"


def _claim(message: MessageSignature) -> Claim:
    """`model:request:response` or `request:response`. A model's name may hold colons itself."""
    *model, request, response = ["", *message.text.rsplit(":", 2)][-3:]
    named = message.text.count(":") > 1
    return Claim(request.lower(), response.lower(), model[0] if named else None)


def _valid(message: MessageSignature, session: Session) -> Factor:
    name, signer = "signature_valid", bytes.fromhex(message.signer)
    if _ALGORITHM_OF.get(len(signer)) != message.algorithm:
        return failed(name, "signature", "its signer and its algorithm do not go together")
    if not _is_signed(message, signer):
        return failed(name, "signature", "it is not by the signer it names")
    if not session.shape:
        return unknown(name, "signature", "no report attests its signer")
    if (session.algorithm, session.signer) != (message.algorithm, message.signer):
        return failed(name, "signature", "its signer is not the attested one")
    return passed(name, "signature", f"{message.algorithm}, by the attested signer")


def _is_signed(message: MessageSignature, signer: bytes) -> bool:
    signature = bytes.fromhex(message.signature)
    if message.algorithm == "ecdsa":
        return address_of(message.text, signature) == signer
    return is_signed_by(signer, message.text.encode(), signature)


def _scope(message: MessageSignature, session: Session) -> Factor:
    if message.kind not in ("", BY_MODEL, BY_GATEWAY):
        why = "the provider names a kind of signer that is not known"
        return failed("signature_scope", "signature", why)
    said = "as the provider says" if message.kind else "as the endpoint is"
    who = "gateway" if _by_gateway(message.kind, session) else "the model's machine"
    return passed("signature_scope", "signature", f"{who}, {said}")


def _pinned(transcript: Transcript, session: Session, policy: Policy) -> Factor:
    if not session.shape:
        return unknown("tls_pinned", "tls", "no report says whether a TLS key is attested")
    attested = session.tls_spki_for(transcript.tls_host)
    if attested is None and policy.tls_key_required:
        return failed(
            "tls_pinned", "tls", "the policy wants an attested TLS key, and there is none"
        )
    if attested is None:
        return skipped("tls_pinned", "tls", "the endpoint has no attested TLS key")
    if not transcript.tls_spki:
        return failed("tls_pinned", "tls", "the prompt went without TLS to an attested TLS key")
    if not attested:
        return failed("tls_pinned", "tls", "none of the attested TLS keys is for the host")
    if transcript.tls_spki != attested:
        return failed("tls_pinned", "tls", "the prompt went to another TLS key than the attested")
    return passed("tls_pinned", "tls", "the prompt went to the attested TLS key")
