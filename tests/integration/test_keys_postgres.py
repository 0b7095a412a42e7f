"""The key table on a real Postgres, and the cache over it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from api.key_cache import KeyCache
from api.record_cache import VALID_SECONDS
from shared.api_key import ApiKey, is_secret
from shared.clock import StillClock, SystemClock
from shared.errors import NotFound, Overloaded
from shared.postgres.engine import STORE_ERRORS, is_up, make_engine
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.tables import api_keys, users


@pytest.fixture
def store(engine: AsyncEngine) -> KeyStore:
    return KeyStore(engine, SystemClock())


async def test_a_key_comes_back_as_the_caller_it_was_made_for(store):
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    key, info = await store.create(
        KeyOptions(
            name="ci",
            user_id="u1",
            tenant="acme",
            scopes=frozenset({"dryrun"}),
            best_lane="flex",
            allowed_models=frozenset({"m1", "m2"}),
            user_field="bill",
            expires_at=expires_at,
            metadata={"a": [1, {"b": "é"}]},
        )
    )
    assert (info.user_id, info.tenant, info.metadata) == ("u1", "acme", {"a": [1, {"b": "é"}]})
    assert info.created_at.tzinfo is not None
    record = (await store.fetch_many([key.public_id]))[key.public_id]
    assert is_secret(key.secret.encode(), record.secret_sha256)
    assert record.is_active
    assert not record.caller.user_is_blocked
    assert record.expires_at == expires_at.timestamp()
    caller = record.caller
    assert (caller.tenant, caller.user, caller.key_id) == ("acme", "u1", key.public_id)
    assert caller.scopes == {"dryrun"}
    assert caller.allowed_models == {"m1", "m2"}
    assert (caller.best_lane, caller.user_field) == ("flex", "bill")


async def test_a_key_without_a_user_gets_one_of_its_own(store, engine):
    _, info = await store.create(KeyOptions(name="ci"))
    assert info.user_id == f"apikey-{info.id}"
    async with engine.connect() as connection:
        alias = await connection.scalar(
            select(users.c.alias).where(users.c.user_id == info.user_id)
        )
    assert alias == "Virtual user for API key: ci"


async def test_the_secret_is_nowhere_in_the_database(store, engine):
    key, _ = await store.create()
    async with engine.connect() as connection:
        row = await connection.scalar(text("SELECT api_keys::text FROM api_keys"))
    assert key.public_id in row
    assert key.secret not in row


async def test_a_key_that_was_minted_before_is_taken_once(store):
    key = ApiKey.mint()
    assert (await store.create(key=key))[0] == key
    with pytest.raises(IntegrityError):
        await store.create(key=key)


async def test_many_keys_are_one_query_and_strangers_are_left_out(store, engine):
    made = [(await store.create())[0] for _ in range(5)]
    names = [key.public_id for key in made]
    found = await store.fetch_many([*names, "unknown00000", "'; DROP TABLE"])
    assert set(found) == set(names)
    assert await store.fetch_many([]) == {}


async def test_keys_are_listed_in_the_order_they_were_made(store):
    made = [(await store.create(KeyOptions(name=str(number))))[1] for number in range(4)]
    assert await store.list_keys() == made
    assert await store.list_keys(skip=1, limit=2) == made[1:3]
    assert await store.has_any()


async def test_a_revoked_key_is_inactive_and_an_unknown_one_is_not_revoked(store):
    assert not await store.has_any()
    key, _ = await store.create()
    assert not (await store.revoke(key.public_id)).is_active
    assert not (await store.fetch_many([key.public_id]))[key.public_id].is_active
    with pytest.raises(NotFound):
        await store.revoke("unknown00000")


async def test_a_blocked_user_shows_on_every_key_of_theirs(store, engine):
    key, _ = await store.create(KeyOptions(user_id="u1"))
    await store.create(KeyOptions(user_id="u1", tenant="other"))
    async with engine.begin() as connection:
        await connection.execute(
            update(users).where(users.c.tenant == "default").values(blocked=True)
        )
    found = await store.fetch_many([info.public_id for info in await store.list_keys()])
    assert {record.caller.tenant: record.caller.user_is_blocked for record in found.values()} == {
        "default": True,
        "other": False,
    }
    assert found[key.public_id].caller.user_is_blocked


async def test_last_use_is_written_once_per_step(engine):
    clock = StillClock()
    store = KeyStore(engine, clock)
    key, _ = await store.create()

    async def last_used() -> float:
        marked = (await store.list_keys())[0].last_used_at
        assert marked is not None
        return marked.timestamp()

    await store.mark_used([key.public_id])
    first = await last_used()
    assert first == clock.now()
    clock.advance(299)
    await store.mark_used([key.public_id])
    assert await last_used() == first
    clock.advance(2)
    await store.mark_used([key.public_id])
    assert await last_used() == clock.now()


async def test_two_tenants_may_have_a_user_of_one_name(store, engine):
    await store.create(KeyOptions(user_id="u1", tenant="a"))
    await store.create(KeyOptions(user_id="u1", tenant="b"))
    await store.create(KeyOptions(user_id="u1", tenant="b"))
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(users)) == 2
        assert await connection.scalar(select(func.count()).select_from(api_keys)) == 3


async def test_a_revocation_is_seen_within_a_second_by_a_cache_under_use(store):
    key, _ = await store.create()
    cache, public_id = KeyCache(store, SystemClock()), key.public_id.encode()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(cache.run())
        assert await cache.get(public_id) is not None
        # In use, a key never has to be waited for.
        for _ in range(30):
            await asyncio.sleep(0.05)
            record = cache.cached(public_id)
            assert record is not None
            assert record.is_active
        await store.revoke(key.public_id)
        loop = asyncio.get_running_loop()
        revoked_at = loop.time()
        while (record := await cache.get(public_id)) is not None and record.is_active:
            assert loop.time() - revoked_at <= VALID_SECONDS
            await asyncio.sleep(0.01)
        running.cancel()


async def test_with_postgres_away_no_key_outlives_its_second(engine, database_url):
    class Cut(KeyStore):
        cut = False

        @override
        async def fetch_many(self, public_ids):
            if self.cut:
                raise ConnectionRefusedError
            return await super().fetch_many(public_ids)

    store = Cut(engine, SystemClock())
    key, _ = await store.create()
    cache, public_id = KeyCache(store, SystemClock()), key.public_id.encode()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(cache.run())
        assert await cache.get(public_id) is not None
        store.cut = True
        await asyncio.sleep(VALID_SECONDS + 0.05)
        with pytest.raises(Overloaded):
            await cache.get(public_id)
        store.cut = False
        assert await cache.get(public_id) is not None
        running.cancel()


async def test_a_server_that_is_not_there_raises_what_callers_expect():
    engine = make_engine("postgresql+asyncpg://postgres@127.0.0.1:1/none", "test")
    with pytest.raises(STORE_ERRORS):
        await KeyStore(engine, SystemClock()).has_any()
    assert not await is_up(engine)
    await engine.dispose()


async def test_a_connection_says_whose_it_is_and_has_limits(engine):
    assert await is_up(engine)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW application_name")) == "ollm-test"
        assert await connection.scalar(text("SHOW statement_timeout")) == "10s"
        assert await connection.scalar(text("SHOW timezone")) == "UTC"


async def test_a_connection_the_server_closed_is_replaced_unseen(store, engine):
    await store.has_any()
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await asyncio.sleep(timedelta(milliseconds=100).total_seconds())
    assert await store.has_any() is False
