"""A transcript: what one upstream call was, in digests. Its receipt is made from it."""

from typing import Literal

import msgspec

Kind = Literal["call", "refusal"]


class ZdrAnswer(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a zero-retention provider was asked for, and what it said of itself. A contract, no proof."""

    zero_data_retention: bool = False
    disallow_prompt_training: bool = False
    """As they were sent."""
    generation_id: str = ""
    final_provider: str = ""
    attempts: int = 0
    planning: str = ""
    """The provider's own words, cut: how many attempts were planned with zero retention."""
    cost: str = ""


class Digest(msgspec.Struct, frozen=True, array_like=True):
    """Of exact bytes on a wire."""

    sha256: str = ""
    """64 lowercase hex digits; empty where nobody has seen the bytes."""
    size: int = 0


class Transcript(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Written by the worker with the job's end. It never holds content.

    In MessagePack it is an array: fields are only ever added at the end, and are optional, so that
    the transcripts of one release can be read by the next and by the one before.
    """

    receipt_id: str
    """The attempt's UUIDv7, 32 hex digits: the row_id of its spend row. A refusal has one of its own."""
    request_id: str
    kind: Kind = "call"
    tenant: str
    user: str
    key_id: str | None = None
    model: str
    """The catalog's name."""
    provider: str
    """Its name in the catalog."""
    provider_type: str
    upstream_model: str
    config_hash: str
    endpoint: str
    tier: str
    streamed: bool = False
    attestation: str = "record"
    """`record` or `require`: the stricter of the model's and the key's."""
    started_at: float
    ended_at: float
    """Epoch seconds."""
    complete: bool = False
    """The answer was read to its end."""
    cause: str = ""
    """Why it was not: `client_disconnected`, `worker_lost`, or another error code of ours."""
    client_request: Digest = Digest()
    forwarded_request: Digest = Digest()
    upstream_response: Digest = Digest()
    client_response: Digest = Digest()
    reserialised_response: str = ""
    """SHA-256 of a whole answer parsed and dumped as Python's `json` does it: what some proxies sign."""
    upstream_id: str = ""
    """The completion's `id`, under which its signature is asked for."""
    upstream_receipt_id: str = ""
    """What an ACI gateway's `x-receipt-id` says."""
    tls_host: str = ""
    tls_spki: str = ""
    """SHA-256 of the peer's SubjectPublicKeyInfo, as hex; empty without TLS."""
    sessions: tuple[str, ...] = ()
    """With `require`: the attestation session it was sent under; of a refusal, those that failed."""
    zdr: ZdrAnswer | None = None

    @property
    def receipt_kind(self) -> str:
        """What its receipt is: proof of a machine, a policy record, or word of a call not made."""
        if self.kind == "refusal":
            return "refusal"
        return "zdr" if self.tier == "ZDR" else "tee"


encode_transcript = msgspec.msgpack.Encoder().encode
decode_transcript = msgspec.msgpack.Decoder(Transcript).decode
