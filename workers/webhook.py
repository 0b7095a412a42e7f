"""Sends signed messages to the operator's webhook, as https://www.standardwebhooks.com says.

An address inside the deployment is refused unless it is allowed: a name that is resolved to one must
not make this process speak to what only it can reach. The address that was checked is the one that is
called, and redirects are not followed.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import random
import socket
from typing import Literal

import httpx
import structlog

from shared.clock import Clock

MOST_ATTEMPTS = 5
FIRST_BACKOFF_SECONDS = 0.5
ATTEMPT_SECONDS = 5.0
DEADLINE_SECONDS = 30.0
"""For all attempts of a message together."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - the mark of a secret, not one
SECRET_BYTES = range(24, 65)
"""As the specification bounds them."""

Outcome = Literal["delivered", "failed", "refused"]

log = structlog.get_logger()


class _Refused(Exception):
    """The address may not be called."""


def decode_secret(text: str) -> bytes:
    """`whsec_` and 24 to 64 bytes of base64. Raises ValueError."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("GATEWAY_WEBHOOK_SECRET is not base64") from error
    if len(secret) not in SECRET_BYTES:
        raise ValueError("GATEWAY_WEBHOOK_SECRET must be 24 to 64 bytes of base64")
    return secret


def sign(secret: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a message."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


class Webhook:
    """One address. While it fails, each message is tried once only, so that they do not pile up."""

    def __init__(self, url: str, secret: str, *, allow_private: bool, clock: Clock) -> None:
        """Raises ValueError."""
        self._url = httpx.URL(url)
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise ValueError("GATEWAY_WEBHOOK_URL is not an address of http or https")
        self._secret = decode_secret(secret)
        self._allow_private = allow_private
        self._clock = clock
        self._is_failing = False
        # Nothing is taken from the environment: neither proxies nor credentials.
        self._client = httpx.AsyncClient(
            timeout=ATTEMPT_SECONDS, follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, message_id: str, body: bytes) -> Outcome:
        """Returns within the deadline, whatever happens."""
        reason = "the deadline has passed"
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                for attempt in range(1 if self._is_failing else MOST_ATTEMPTS):
                    if attempt:
                        await asyncio.sleep(_backoff(attempt))
                    reason = await self._attempt(message_id, body)
                    if not reason:
                        self._is_failing = False
                        return "delivered"
        except _Refused as refused:
            log.error("A webhook was refused", action="webhook_refused", reason=str(refused))
            return "refused"
        except TimeoutError:
            pass  # told below, with the reason of the attempt before
        self._is_failing = True
        log.warning(
            "A webhook was given up", action="webhook_failed", message_id=message_id, reason=reason
        )
        return "failed"

    async def _attempt(self, message_id: str, body: bytes) -> str:
        """Why it failed, in words that hold no address; empty when it was taken."""
        timestamp = int(self._clock.now())  # of this attempt: receivers refuse old ones
        signature = sign(self._secret, message_id=message_id, timestamp=timestamp, body=body)
        headers = {
            "content-type": "application/json",
            "user-agent": "ollm-gateway",
            "host": self._url.netloc.decode(),
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                address = self._url.copy_with(host=await self._resolved())
                async with self._client.stream(
                    "POST",
                    address,
                    content=body,
                    headers=headers,
                    extensions={"sni_hostname": self._url.host},
                ) as answer:
                    return "" if answer.is_success else f"it answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return f"it cannot be reached ({type(error).__name__})"

    async def _resolved(self) -> str:
        """Raises _Refused, and OSError where the name has no address."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(
            self._url.host, port, type=socket.SOCK_STREAM
        )
        addresses = [str(one[4][0]) for one in found]
        if not self._allow_private and not all(map(is_public, addresses)):
            raise _Refused("its address is private; GATEWAY_WEBHOOK_ALLOW_PRIVATE allows it")
        return addresses[0]


def is_public(address: str) -> bool:
    """Whether it is reachable for everybody, whichever notation hides it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is not None:
            found = inner
    return found.is_global and not found.is_multicast


def _backoff(attempt: int) -> float:
    seconds = FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1)
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311
