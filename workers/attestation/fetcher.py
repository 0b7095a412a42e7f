"""Fetches the documents that prove things: small, from addresses of the operator's, within a time.

Redirects are not followed and nothing is taken from the environment: where these calls go is the
catalog's decision. What comes back is untrusted.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CALL_SECONDS = 15.0
MOST_BYTES = 1 << 20
"""A report of eight GPUs has 0.3 MB."""


class EvidenceAway(Exception):
    """It could not be obtained now. The reason holds no address and nothing that was received."""


class Fetched(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    headers: Mapping[str, str]
    tls_spki: str = ""
    """SHA-256 of the SubjectPublicKeyInfo of the host's certificate; empty without TLS."""

    @property
    def text(self) -> str:
        """Raises EvidenceAway where it is none."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise EvidenceAway("the answer is no text") from error


class Fetcher:
    """Over a transport that somebody else closes."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._client = httpx.AsyncClient(
            transport=transport, timeout=CALL_SECONDS, follow_redirects=False, trust_env=False
        )

    async def get(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> Fetched:
        """`key` goes as the bearer. Raises EvidenceAway."""
        headers = _headers(key)
        return await self._call("GET", url, most_bytes, params=params or {}, headers=headers)

    async def post(self, url: str, body: bytes) -> Fetched:
        """Of JSON. Raises EvidenceAway."""
        headers = {**_headers(None), "content-type": "application/json"}
        return await self._call("POST", url, MOST_BYTES, content=body, headers=headers)

    async def _call(self, method: str, url: str, most_bytes: int, **rest: Any) -> Fetched:
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                self._client.stream(method, url, **rest) as response,
            ):
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > most_bytes:
                        raise EvidenceAway("the answer is too large")
                headers = dict(response.headers)
                return Fetched(response.status_code, bytes(body), headers, _spki(response))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise EvidenceAway(f"it cannot be reached ({type(error).__name__})") from error


def _headers(key: str | None) -> dict[str, str]:
    headers = {"accept-encoding": "identity", "user-agent": "ollm-gateway"}
    return headers if key is None else {**headers, "authorization": f"Bearer {key}"}


def _spki(response: httpx.Response) -> str:
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    return spki_of(tls.getpeercert(binary_form=True)) if tls is not None else ""


def spki_of(certificate: bytes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo of a certificate in DER, as hex."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
