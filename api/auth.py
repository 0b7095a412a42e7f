"""Finds out who is calling: one resolver for every header a client may carry its key in."""

import hmac
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol

from api.billing import blocked
from api.key_cache import KeyCache
from shared.api_key import is_secret, split
from shared.caller import ANONYMOUS_CALLER, MASTER_CALLER, Caller
from shared.catalog import Catalog
from shared.clock import Clock
from shared.errors import NotAuthenticated, NotPermitted, Overloaded
from shared.postgres.keys import KeyRecord

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""

AUTHORIZATION = b"authorization"
HEADERS_IN_ORDER = (b"otari-key", b"anyllm-key", b"x-anyllm-key", AUTHORIZATION, b"x-api-key")
"""The first that is not empty wins, whether it is right or not."""
_NAMES = frozenset(HEADERS_IN_ORDER)
BEARER = b"bearer "
AUTH_MS = "auth_ms"
"""Key of the scope: how long finding out who calls took; for the route's `server-timing`."""

MISSING = "Missing Otari-Key, Authorization, or x-api-key header"
NOT_BEARER = "Invalid header format. Expected 'Bearer <token>'"
UNKNOWN = "Invalid API key"


class HasCatalog(Protocol):
    @property
    def current(self) -> Catalog: ...


class Authenticator:
    """Give it `KeyCache.run()` running."""

    def __init__(
        self, *, keys: KeyCache, catalog: HasCatalog, master_key: str, clock: Clock
    ) -> None:
        self._keys = keys
        self._catalog = catalog
        self._master_key = master_key.encode()
        self._clock = clock

    def cached(self, headers: Headers, address: str | None = None) -> Caller | None:
        """The caller, where that is known without waiting; else None: ask `identify`.

        `address` is the client's, see `address_of`; without one a key that is bound to networks is
        refused. None also stands for every refusal. Meant for the hot path: try this, then await `identify`.
        """
        if self._catalog.current.document.auth.mode == "open":
            return ANONYMOUS_CALLER
        token = _token(headers)
        if token is None:
            return None
        parts = split(token)
        if parts is None:
            return MASTER_CALLER if self._is_master(token) else None
        record = self._keys.cached(parts[0])
        if record is None or not self._is_secret(parts[1], record):
            return None
        if record.is_active and not self._has_expired(record) and _may_come_from(record, address):
            return record.caller
        return None

    async def caller(self, headers: Headers, address: str | None = None) -> Caller:
        """One who may go on. Raises what `identify` does, and NotPermitted for a blocked user."""
        caller = await self.identify(headers, address)
        if caller.user_is_blocked:
            raise blocked(caller.user)
        return caller

    async def identify(self, headers: Headers, address: str | None = None) -> Caller:
        """For those who look themselves whether the user is blocked, because other refusals of
        theirs come first.

        Raises NotAuthenticated, NotPermitted (a foreign address), Overloaded (no store to ask).
        """
        if self._catalog.current.document.auth.mode == "open":
            return ANONYMOUS_CALLER
        token = read_token(headers)
        if self._is_master(token):
            return MASTER_CALLER
        parts = split(token)
        if parts is None:
            raise NotAuthenticated(UNKNOWN)
        record = await self._keys.get(parts[0])
        if record is None or not self._is_secret(parts[1], record):
            raise NotAuthenticated(UNKNOWN)
        self._check(record, address)
        return record.caller

    def require_master(self, headers: Headers) -> Caller:
        """For management routes, in open mode too. Raises NotAuthenticated, or Overloaded (503)
        where no master key is configured.
        """
        token = read_token(headers)
        if not self._master_key:
            raise Overloaded(
                "Master key not configured. Set GATEWAY_MASTER_KEY environment variable.",
                code="master_key_not_configured",
            )
        if not self._is_master(token):
            raise NotAuthenticated("Invalid master key")
        return MASTER_CALLER

    def _is_master(self, token: bytes) -> bool:
        # An empty master key must match nothing.
        return bool(self._master_key) and hmac.compare_digest(token, self._master_key)

    def _is_secret(self, secret: bytes, record: KeyRecord) -> bool:
        """The present one, or, while a rotation overlaps, the one before."""
        if is_secret(secret, record.secret_sha256):
            return True
        before = record.previous_sha256
        if before is None or self._clock.now() >= record.previous_valid_until:
            return False
        return is_secret(secret, before)

    def _check(self, record: KeyRecord, address: str | None) -> None:
        """Said only to those who hold the secret."""
        if not record.is_active:
            raise NotAuthenticated("API key is inactive")
        if self._has_expired(record):
            raise NotAuthenticated("API key has expired")
        if not _may_come_from(record, address):
            raise NotPermitted(
                "This API key may not be used from this address.", code="address_not_allowed"
            )

    def _has_expired(self, record: KeyRecord) -> bool:
        return record.expires_at is not None and record.expires_at < self._clock.now()


def address_of(scope: Mapping[str, Any]) -> str | None:
    """The client's address as the socket tells it; no header may say otherwise."""
    client = scope.get("client")
    return client[0] if client else None


def _may_come_from(record: KeyRecord, address: str | None) -> bool:
    if not record.networks:
        return True
    if not address:
        return False
    try:
        found = ip_address(address)
    except ValueError:
        return False  # a Unix socket, say
    # A socket for both versions shows an IPv4 client so.
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in record.networks)


def read_token(headers: Headers) -> bytes:
    """The credential a request carries. Raises NotAuthenticated."""
    found = _first(headers)
    if found is None:
        raise NotAuthenticated(MISSING, code="missing_api_key")
    token = _strip(*found)
    if token is None:
        raise NotAuthenticated(NOT_BEARER)
    return token


def _token(headers: Headers) -> bytes | None:
    found = _first(headers)
    return None if found is None else _strip(*found)


def _first(headers: Headers) -> tuple[bytes, bytes] | None:
    """The header that counts, by the order of families; of equal names, the first with a value."""
    found = [(name, value) for name, value in headers if name in _NAMES and value.strip()]
    if len(found) < 2:
        return found[0] if found else None
    return min(found, key=lambda header: HEADERS_IN_ORDER.index(header[0]))


def _strip(name: bytes, value: bytes) -> bytes | None:
    """The token without its scheme; None where the scheme is missing and required."""
    if value[:7].lower() == BEARER:
        return value[7:].strip()
    return None if name == AUTHORIZATION else value.strip()
