"""A claim: what a signed message says of one call, to be compared with what went over our wire."""

import re

import msgspec

from shared.attestation.factor import Factor, failed, passed, skipped, unknown
from shared.transcript import Transcript

VLLM_PROXY = "phala"
"""The type of provider whose proxy signs another dump of a whole answer than it sends."""
RESERIALISED = "reserialised"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Claim(msgspec.Struct, frozen=True):
    request: str
    """SHA-256 as hex digits, as are all of them."""
    response: str
    model: str | None = None
    """None: it names none."""


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def check_claim(claim: Claim, transcript: Transcript) -> list[Factor]:
    """request_hash, response_hash and signature_model."""
    return [_request(claim, transcript), _response(claim, transcript), _model(claim, transcript)]


def _request(claim: Claim, transcript: Transcript) -> Factor:
    ours = transcript.forwarded_request.sha256
    if not ours:
        return unknown("request_hash", "computed", "the request we sent was not hashed")
    if not is_digest(claim.request) or claim.request != ours:
        return failed("request_hash", "signature", "it is signed for another request")
    return passed("request_hash", "signature", "the request we sent")


def _response(claim: Claim, transcript: Transcript) -> Factor:
    ours = transcript.upstream_response.sha256
    if not ours:
        return unknown("response_hash", "computed", "the answer was not hashed")
    if not is_digest(claim.response):
        return failed("response_hash", "signature", "it is signed for no answer")
    if claim.response == ours:
        return passed("response_hash", "signature", "raw: the bytes that were received")
    if _may_be_written_anew(transcript) and claim.response == transcript.reserialised_response:
        why = f"{RESERIALISED}: the answer that was received, written as its proxy does"
        return passed("response_hash", "signature", why)
    return failed("response_hash", "signature", "it is signed for another answer")


def _may_be_written_anew(transcript: Transcript) -> bool:
    """That hash is the gateway's word for what it read, so it counts for whom it must alone."""
    return transcript.provider_type == VLLM_PROXY and not transcript.streamed


def _model(claim: Claim, transcript: Transcript) -> Factor:
    if claim.model is None:
        why = "the signature names no model: only the request that it is over does"
        return skipped("signature_model", "signature", why)
    if claim.model != transcript.upstream_model:
        return failed("signature_model", "signature", "it is signed for another model")
    return passed("signature_model", "signature", "the model we asked for")
