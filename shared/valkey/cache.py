"""The exact cache's entries in one shard: sealed answers, each with its own end, all within a bound."""

from shared.valkey.client import Client
from shared.valkey.keys import ShardKeys
from shared.valkey.scripts import CACHE_PUT

FORGOTTEN_AT_ONCE = 1000
"""Others that a put removes at most: a script must not hold up the server."""
BESIDE_BYTES = 512
"""What an entry takes beside its value, about: its key, its end, its place in the index."""


class CacheEntries:
    """Every wait ends with the client's own deadline; callers set tighter ones."""

    def __init__(self, client: Client, keys: ShardKeys) -> None:
        self._client = client
        self._keys = keys

    async def get(self, name: str) -> bytes | None:
        """Raises ValkeyAway and CommandRefused."""
        found: bytes | None = await self._client.call(b"GET", self._keys.cache_entry(name))
        return found

    async def put(self, name: str, sealed: bytes, *, ttl_seconds: float, max_bytes: int) -> bool:
        """False where it is larger than the bound, or room is still being made for it.

        Raises ValkeyAway and CommandRefused. May be repeated. A server whose memory is full refuses.
        """
        keys = self._keys
        kept: int = await self._client.script(
            CACHE_PUT,
            (keys.cache_entry(name), keys.cache_index, keys.cache_bytes),
            (name, sealed, int(ttl_seconds * 1000), max_bytes, keys.cache_entry(""),
             FORGOTTEN_AT_ONCE, BESIDE_BYTES),
        )  # fmt: skip
        return kept == 1
