"""What went over the wires in one call, as digests of exact bytes, and the transcript made of them.

Bytes are hashed as they are written and read, before anything looks at them; none are kept.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import msgspec
from typing_extensions import override

from shared.job import JobHeader
from shared.run import unpack
from shared.spend import SpendRow
from shared.transcript import Digest, Transcript, ZdrAnswer
from workers.inference.retention import Retention
from workers.providers.http.prepared import LeanResponse
from workers.providers.openai import UPLOAD_PATHS

RESERIALISES = "phala"
"""Its proxies sign a whole answer as Python's `json` writes it, and send it otherwise."""
HAS_RETENTION = "vercel"
RECEIPT_HEADER = b"x-receipt-id"
MAX_ID_CHARACTERS = 256
"""Ids are the provider's to choose, and stand in addresses and rows."""

_decode = msgspec.json.Decoder().decode


class Running:
    """Of bytes that come in pieces."""

    __slots__ = ("_hash", "size")

    def __init__(self) -> None:
        # Nothing secret rests on it; it names bytes that others have signed.
        self._hash = hashlib.sha256(usedforsecurity=False)
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.size += len(piece)

    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest(), self.size) if self.size else Digest()


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data, usedforsecurity=False).hexdigest(), len(data))


def asked_by_client(header: JobHeader, body: bytes) -> Digest:
    """Of a job's opened body, which is what its client sent; of an upload it is only what stood
    before the file, and nobody has seen the whole."""
    return Digest() if header.endpoint in UPLOAD_PATHS else digest_of(body)


class Digests:
    """Of one attempt, from its send to its end."""

    __slots__ = (
        "_client_request",
        "_forwarded",
        "_provider_type",
        "_sent",
        "complete",
        "receipt_id",
        "reserialised",
        "retention",
        "spki",
        "tls_host",
        "to_client",
        "upstream",
    )  # fmt: skip

    def __init__(self, client_request: Digest, provider_type: str) -> None:
        self._client_request = client_request
        self._provider_type = provider_type
        self._forwarded = Digest()
        self._sent: Running | None = None
        """Of a body that is sent while it comes in."""
        self.upstream = Running()
        self.to_client = Running()
        self.complete = False
        """The answer was read to its end."""
        self.reserialised = ""
        self.receipt_id = ""
        self.tls_host = ""
        self.spki = ""
        self.retention = Retention() if provider_type == HAS_RETENTION else None

    # ---- the way there

    def forward(self, request: httpx.Request) -> None:
        """Before it is sent. A body that is still coming is hashed on its way."""
        stream = request.stream
        if isinstance(stream, httpx.ByteStream):
            body = request.read()
            self._forwarded = digest_of(body)
            if self.retention is not None:
                self.retention.sent(body)
        elif isinstance(stream, httpx.AsyncByteStream):
            self._sent = Running()
            request.stream = Hashed(stream, self._sent)

    def answered(self, response: httpx.Response) -> None:
        """The head is here."""
        if not isinstance(response, LeanResponse):
            return  # of another transport, which says nothing of its connections
        self.receipt_id = response.header(RECEIPT_HEADER).decode("latin-1")[:MAX_ID_CHARACTERS]
        if spki := response.network_stream.spki:
            self.tls_host, self.spki = response.request.url.host, spki

    # ---- the way back

    def whole(self, data: bytes, body: bytes | None) -> None:
        """A whole answer, and what its client gets; None: this call's answer goes to nobody."""
        self.upstream.add(data)
        self.complete = True
        if body is not None:
            self.to_client.add(body)
        if self._provider_type == RESERIALISES:
            self.reserialised = _reserialised(data)
        if self.retention is not None:
            self.retention.answered([data])

    def relayed(self, text: bytes) -> None:
        """A part of a stream, as it is posted."""
        self.to_client.add(unpack(text))

    @property
    def is_told(self) -> bool:
        """Whether there is to be a receipt: of what was read to its end, or seen by its client."""
        return self.complete or self.to_client.size > 0

    def transcript(
        self, row: SpendRow, *, attestation: str, upstream_id: str, cause: str
    ) -> Transcript:
        """`cause`: why it is not complete, where it is not."""
        sent = self._forwarded if self._sent is None else self._sent.digest()
        told = of_row(row, provider_type=self._provider_type, attestation=attestation)
        return msgspec.structs.replace(
            told,
            complete=self.complete,
            cause="" if self.complete else cause,
            client_request=self._client_request,
            forwarded_request=sent,
            upstream_response=self.upstream.digest(),
            client_response=self.to_client.digest(),
            reserialised_response=self.reserialised,
            upstream_id=upstream_id[:MAX_ID_CHARACTERS],
            upstream_receipt_id=self.receipt_id,
            tls_host=self.tls_host,
            tls_spki=self.spki,
            zdr=self._zdr(),
        )

    def _zdr(self) -> ZdrAnswer | None:
        return None if self.retention is None else self.retention.answer()


class Hashed(httpx.AsyncByteStream):
    """A body that is hashed while it is sent."""

    def __init__(self, body: httpx.AsyncByteStream, running: Running) -> None:
        self._body = body
        self._running = running

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._body)
        try:
            async for part in parts:
                self._running.add(part)
                yield part
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()  # left early, it ends here and not when it is collected


def of_row(row: SpendRow, *, provider_type: str, attestation: str) -> Transcript:
    """What a spend row knows of its call: who, what and when."""
    return Transcript(
        receipt_id=row.row_id,
        request_id=row.request_id,
        tenant=row.tenant,
        user=row.user,
        key_id=row.key_id,
        model=row.model,
        provider=row.provider,
        provider_type=provider_type,
        upstream_model=row.upstream_model,
        config_hash=row.config_hash,
        endpoint=row.endpoint,
        tier=row.tier,
        streamed=row.streamed,
        attestation=attestation,
        started_at=row.started_at.timestamp(),
        ended_at=row.ended_at.timestamp(),
    )


def _reserialised(data: bytes) -> str:
    """Empty for what is no JSON."""
    try:
        text = json.dumps(_decode(data))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
        return ""
    return digest_of(text.encode()).sha256
