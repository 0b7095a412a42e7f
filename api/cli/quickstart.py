"""The first API key: made with the data directory, so that a newcomer's first request works."""

from shared.api_key import ApiKey, is_secret
from shared.clock import SystemClock
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.session import open_postgres

USER = "quickstart"


async def api_key(database_url: str, kept: str | None) -> str:
    """The kept key where it still opens the gateway; else a key that does. Raises PostgresAway."""
    known = ApiKey.parse(kept) if kept is not None else None
    async with open_postgres(database_url, "cli") as engine:
        keys = KeyStore(engine, SystemClock())
        if known is None:
            return await _made(keys, None)
        record = (await keys.fetch_many([known.public_id])).get(known.public_id)
        if record is None:
            # The database was lost or is another one: the same key again spoils no notes.
            return await _made(keys, known)
        fits = is_secret(known.secret.encode(), record.secret_sha256)
        if record.is_active and fits:
            return known.text
        return await _made(keys, None)


async def _made(keys: KeyStore, key: ApiKey | None) -> str:
    made, _ = await keys.create(KeyOptions(name=USER, user_id=USER), key=key)
    return made.text
