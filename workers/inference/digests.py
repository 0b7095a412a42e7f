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
from shared.transcript import Digest, Transcript
from workers.inference.retention import Retention
from workers.providers.http.prepared import LeanResponse, PreparedRequest
from workers.providers.openai import UPLOAD_PATHS

RESERIALISES = "phala"
"""Its proxies sign a whole answer as Python's `json` writes it, and send it otherwise."""
HAS_RETENTION = "vercel"
RECEIPT_HEADER = b"x-receipt-id"
MAX_ID_CHARACTERS = 256
"""Ids are the provider's to choose, and stand in addresses and rows."""

GATHERED, LARGE_BYTES = 32, 2 << 10
"""Pieces of a stream that wait to be hashed, and from which size on one waits for no other."""
UNSEEN = Digest()

_decode = msgspec.json.Decoder().decode


class Running:
    """Of bytes that come in pieces."""

    __slots__ = ("_hash", "size")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.size += len(piece)

    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest(), self.size) if self.size else UNSEEN


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def asked_by_client(header: JobHeader, body: bytes) -> Digest:
    """Of a job's opened body, which is what its client sent; of an upload it is only what stood
    before the file, and nobody has seen the whole."""
    return UNSEEN if header.endpoint in UPLOAD_PATHS else digest_of(body)


class Digests:
    """Of one attempt, from its send to its end."""

    __slots__ = (
        "_asked",
        "_provider_type",
        "_sent",
        "_streamed",
        "complete",
        "heard",
        "read",
        "receipt_id",
        "reserialised",
        "retention",
        "spki",
        "tls_host",
    )

    def __init__(self, asked: Digest, provider_type: str) -> None:
        """`asked`: of what the client sent."""
        self._asked = asked
        self._provider_type = provider_type
        self._sent: Digest | Running = UNSEEN
        self._streamed: Streamed | None = None
        self.read = UNSEEN
        """What came from the provider."""
        self.heard = UNSEEN
        """What its client got."""
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
        if isinstance(request, PreparedRequest):
            self._sent = digest_of(request.body)
            if self.retention is not None:
                self.retention.sent(request.body)
        elif isinstance(request.stream, httpx.AsyncByteStream):
            self._sent = running = Running()
            request.stream = Hashed(request.stream, running)

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
        self.complete = True
        self.read = digest_of(data)
        if body is not None:
            self.heard = digest_of(body)
        if self._provider_type == RESERIALISES:
            self.reserialised = _reserialised(data)
        if self.retention is not None:
            self.retention.answered([data])

    def stream(self) -> "Streamed":
        """A stream begins."""
        self._streamed = Streamed()
        return self._streamed

    @property
    def is_told(self) -> bool:
        """Whether there is to be a receipt: of what was read to its end, or heard in part."""
        self._hash()
        return self.complete or self.heard.size > 0

    def _hash(self) -> None:
        if self._streamed is not None:
            read, heard = self._streamed.hash()
            self.read, self.heard = read.digest(), heard.digest()

    def transcript(
        self, row: SpendRow, *, attestation: str, upstream_id: str, cause: str
    ) -> Transcript:
        """`cause`: why it is not complete, where it is not."""
        self._hash()
        told = of_row(row, provider_type=self._provider_type, attestation=attestation)
        return msgspec.structs.replace(
            told,
            complete=self.complete,
            cause="" if self.complete else cause,
            client_request=self._asked,
            forwarded_request=_final(self._sent),
            upstream_response=self.read,
            client_response=self.heard,
            reserialised_response=self.reserialised,
            upstream_id=upstream_id[:MAX_ID_CHARACTERS],
            upstream_receipt_id=self.receipt_id,
            tls_host=self.tls_host,
            tls_spki=self.spki,
            zdr=None if self.retention is None else self.retention.answer(),
        )


class Streamed:
    """Both ends of a stream, as it passes. Some pieces are gathered: a call for each, of a small piece
    and of memory that others have used since, costs more than to hash it."""

    __slots__ = ("_heard", "_read", "heard", "read")

    def __init__(self) -> None:
        self.read: list[bytes] = []
        """To which is appended what came from the provider."""
        self.heard: list[bytes] = []
        """To which is appended what is posted, packed runs and all."""
        self._read = Running()
        self._heard = Running()

    def hash(self) -> tuple[Running, Running]:
        """What has gathered; the digests of what was read and heard until now."""
        self._read.add(b"".join(self.read))
        self._heard.add(unpack(b"".join(self.heard)))
        self.read.clear()
        self.heard.clear()
        return self._read, self._heard


def _final(seen: Digest | Running) -> Digest:
    return seen.digest() if isinstance(seen, Running) else seen


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
