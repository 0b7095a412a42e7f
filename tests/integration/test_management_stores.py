"""Users, budgets, prices, keys and the audit log on a real Postgres; spend on a real ClickHouse."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.account import RateLimits
from shared.api_key import is_secret
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clickhouse.retention import keep_rows
from shared.clickhouse.rollups import Rollups
from shared.clickhouse.spend import SpendTable
from shared.clickhouse.user_spend import UserSpend
from shared.clock import StillClock, utc
from shared.errors import Conflict, NotFound
from shared.postgres.audit import GATEWAY, Actor, AuditEntry, AuditFilter, AuditLog
from shared.postgres.budgets import BudgetTerms
from shared.postgres.keys import EVERY_MODEL, KeyChange, KeyOptions
from shared.postgres.pricing import PriceStore
from shared.postgres.tables import audit_log, budget_resets
from shared.postgres.users import NewUser, UserChange
from shared.price import Price, SeedPrice
from shared.spend import KeySpender, Spender
from tests.integration.moment import NOW
from tests.spend_rows import ADMITTED, spend_row

ADMIN = Actor("master", "192.0.2.7", "0198-request")
DAY = 86_400


@pytest.fixture
def prices(engine, clock) -> PriceStore:
    return PriceStore(engine, clock)


async def entries(engine: AsyncEngine, **wanted: str) -> list[AuditEntry]:
    return await AuditLog(engine).list_entries(AuditFilter(**wanted))


async def test_a_user_comes_back_as_it_was_made(users):
    made = await users.create(
        NewUser(user_id="u1", alias="One", blocked=True, metadata={"a": [1.5, None]}), ADMIN
    )
    assert await users.get("u1") == made
    assert (made.alias, made.blocked, made.metadata) == ("One", True, {"a": [1.5, None]})
    assert (made.budget_id, made.budget_started_at, made.next_budget_reset_at) == (None, None, None)
    with pytest.raises(Conflict, match="User with id 'u1' already exists"):
        await users.create(NewUser(user_id="u1"), ADMIN)
    await users.create(NewUser(user_id="u1", tenant="other"), ADMIN)
    assert [user.tenant for user in await users.list_users()] == ["default", "other"]
    assert [user.tenant for user in await users.list_users(tenant="other")] == ["other"]


async def test_of_two_that_make_one_user_at_once_one_is_told_of_the_other(users):
    made = await asyncio.gather(
        *(users.create(NewUser(user_id="u1"), ADMIN) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in made) == 3


async def test_a_change_touches_what_it_names_alone(users):
    made = await users.create(NewUser(user_id="u1", alias="One", metadata={"a": 1}), ADMIN)
    changed = await users.update("u1", UserChange(blocked=True), ADMIN)
    assert (changed.alias, changed.blocked, changed.metadata) == ("One", True, {"a": 1})
    assert changed.updated_at > made.updated_at
    assert await users.update("u1", UserChange(), ADMIN) == changed
    assert (await users.update("u1", UserChange(metadata={}), ADMIN)).metadata == {}
    with pytest.raises(NotFound, match="User with id 'u2' not found"):
        await users.update("u2", UserChange(), ADMIN)


async def test_naming_a_budget_again_starts_its_window_anew(users, budgets, clock):
    budget = await budgets.create(BudgetTerms(budget_duration_sec=DAY), ADMIN)
    budget_id = str(budget.budget_id)
    made = await users.create(NewUser(user_id="u1", budget_id=budget_id), ADMIN)
    assert made.budget_started_at == NOW
    assert made.next_budget_reset_at == NOW + timedelta(days=1)
    clock.advance(60)
    renamed = await users.update("u1", UserChange(alias="x"), ADMIN)
    assert renamed.budget_started_at == NOW
    again = await users.update("u1", UserChange(budget_id=budget_id), ADMIN)
    assert again.budget_started_at == NOW + timedelta(minutes=1)
    assert again.spend_since is None
    endless = await budgets.create(BudgetTerms(max_budget=Decimal(1)), ADMIN)
    moved = await users.update("u1", UserChange(budget_id=str(endless.budget_id)), ADMIN)
    assert moved.next_budget_reset_at is None


async def test_a_budget_of_another_tenant_is_unknown(users, budgets):
    theirs = await budgets.create(BudgetTerms(), ADMIN, tenant="theirs")
    with pytest.raises(NotFound, match=r"Budget with id '.*' not found"):
        await users.create(NewUser(user_id="u1", budget_id=str(theirs.budget_id)), ADMIN)
    with pytest.raises(NotFound, match="Budget with id 'nonsense' not found"):
        await users.create(NewUser(user_id="u1", budget_id="nonsense"), ADMIN)
    assert await users.list_users() == []


async def test_a_deleted_user_is_hidden_and_its_keys_stay_useless_when_it_comes_back(
    users, keys, clock
):
    key, info = await keys.create(KeyOptions(user_id="u1"))
    before = await users.get("u1")
    await users.delete("u1", ADMIN)
    assert await users.list_users() == []
    for refused in (users.get("u1"), users.delete("u1", ADMIN)):
        with pytest.raises(NotFound):
            await refused
    with pytest.raises(NotFound, match=r"User 'u1' has been deleted. Recreate via POST /v1/users"):
        await keys.create(KeyOptions(user_id="u1"))
    assert len(await keys.list_keys()) == 1
    # Made active again by hand: still of nobody.
    await keys.update(str(info.id), KeyChange(is_active=True), ADMIN)
    assert not (await keys.fetch_many([key.public_id]))[key.public_id].is_active
    await keys.update(str(info.id), KeyChange(is_active=False), ADMIN)
    clock.advance(5)
    revived = await users.create(NewUser(user_id="u1", alias="Back"), ADMIN)
    assert (revived.alias, revived.created_at) == ("Back", before.created_at)
    assert revived.spend_since == utc(clock.now())
    assert not (await keys.fetch_many([key.public_id]))[key.public_id].is_active


async def test_a_budget_in_use_can_go_and_leaves_history_behind(users, budgets, engine):
    budget = await budgets.create(BudgetTerms(max_budget=Decimal("10.50")), ADMIN)
    budget_id = str(budget.budget_id)
    assert (await budgets.get(budget_id)).max_budget == Decimal("10.50")
    await users.create(NewUser(user_id="u1", budget_id=budget_id), ADMIN)
    async with engine.begin() as connection:
        await connection.execute(
            insert(budget_resets).values(
                tenant="default", user_id="u1", budget_id=budget.budget_id,
                previous_spend=Decimal(1), reset_at=NOW,
            )
        )  # fmt: skip
    changed = await budgets.update(budget_id, BudgetTerms(budget_duration_sec=60), ADMIN)
    assert (changed.max_budget, changed.budget_duration_sec) == (Decimal("10.50"), 60)
    await budgets.delete(budget_id, ADMIN)
    assert (await users.get("u1")).budget_id is None
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(budget_resets)) == 1
    with pytest.raises(NotFound):
        await budgets.delete(budget_id, ADMIN)


async def test_the_price_in_force_is_the_newest_that_has_begun(prices):
    for days in (-2, -1, 1):
        price = Price(input=Decimal(f"0.{days + 5}"), cached_input=Decimal("0.000026"))
        await prices.put("a:m", price, ADMIN, effective_at=NOW + timedelta(days=days))
    assert (await prices.in_force("a:m")).price.input == Decimal("0.4")
    assert (await prices.in_force("a:m")).price.cached_input == Decimal("0.000026")
    earlier = await prices.in_force("a:m", as_of=NOW - timedelta(days=2))
    assert earlier.price.input == Decimal("0.3")
    with pytest.raises(NotFound, match="Pricing for model 'a:m' not found"):
        await prices.in_force("a:m", as_of=NOW - timedelta(days=3))
    inputs = [one.price.input for one in await prices.history("a:m")]
    assert inputs == [Decimal("0.6"), Decimal("0.4"), Decimal("0.3")]


async def test_a_book_of_prices_has_what_is_in_force_and_what_comes(prices, clock):
    for days in (-2, -1, 1, 2):
        at = NOW + timedelta(days=days)
        await prices.put("a", Price(input=Decimal(10 + days)), ADMIN, effective_at=at)
    await prices.put("b", Price(output=Decimal("0.1")), ADMIN)
    found = await prices.charged_from(utc(clock.now()))
    assert sorted((row.model_key, row.effective_at - clock.now(), row.price) for row in found) == [
        ("a", -DAY, Price(input=Decimal(9))),
        ("a", DAY, Price(input=Decimal(11))),
        ("a", 2 * DAY, Price(input=Decimal(12))),
        ("b", 0, Price(output=Decimal("0.1"))),
    ]


async def test_seeds_are_for_keys_without_a_price_and_audited_as_the_gateways(
    engine, prices, clock
):
    await prices.put("a/old", Price(), ADMIN)
    later = NOW + timedelta(days=1)
    seeds = {
        "a:old": SeedPrice(input_price_per_million=Decimal(1), output_price_per_million=Decimal(2)),
        "a:new": SeedPrice(
            input_price_per_million=Decimal("0.1"),
            output_price_per_million=Decimal("0.2"),
            cache_read_price_per_million=Decimal("0.01"),
        ),
        "m": SeedPrice(
            input_price_per_million=Decimal(1), output_price_per_million=Decimal(2),
            effective_at=later,
        ),
    }  # fmt: skip
    both = await asyncio.gather(prices.seed(seeds, GATEWAY), prices.seed(seeds, GATEWAY))
    assert sorted(both) == [[], ["a:new", "m"]]
    clock.advance(5)
    assert await prices.seed(seeds, GATEWAY) == []
    (new,) = await prices.history("a:new")
    assert (new.effective_at, new.price) == (
        NOW, Price(Decimal("0.1"), Decimal("0.2"), cached_input=Decimal("0.01"))
    )  # fmt: skip
    assert (await prices.history("m"))[0].effective_at == later
    (entry,) = await entries(engine, object_id="a:new")
    assert (entry.actor, entry.action, entry.before) == ("gateway", "pricing.put", None)
    await prices.delete("a:new", ADMIN)
    assert await prices.seed(seeds, GATEWAY) == ["a:new"]


async def test_every_change_of_a_price_changes_the_version_a_late_commit_too(engine, prices):
    versions = [await prices.version()]
    await prices.put("a", Price(), ADMIN)
    versions.append(await prices.version())
    assert await prices.version() == versions[-1]
    async with engine.begin() as late:
        # Began first, so its `updated_at` is older than that of the change which is seen first.
        await late.execute(text("SELECT now()"))
        await prices.put("b", Price(), ADMIN)
        versions.append(await prices.version())
        await late.execute(text("UPDATE pricing SET updated_at = now() WHERE model_key = 'a'"))
    versions.append(await prices.version())
    await prices.put("a", Price(input=Decimal(1)), ADMIN)
    versions.append(await prices.version())
    await prices.delete("a", ADMIN)
    await prices.put("c", Price(), ADMIN)
    versions.append(await prices.version())
    assert len(set(versions)) == len(versions)


async def test_one_time_is_one_row_and_no_time_is_a_row_each(prices, clock):
    await prices.put("a:m", Price(input=Decimal(1)), ADMIN, effective_at=NOW)
    await prices.put("a:m", Price(input=Decimal(2)), ADMIN, effective_at=NOW)
    assert [one.price.input for one in await prices.history("a:m")] == [Decimal(2)]
    for _ in range(2):
        clock.advance(1)
        await prices.put("a:m", Price(), ADMIN)
    assert len(await prices.history("a:m")) == 3
    await prices.put("A:m", Price(), ADMIN)
    listed = [(one.model_key, one.effective_at) for one in await prices.list_prices()]
    assert [key for key, _ in listed] == ["A:m", "a:m", "a:m", "a:m"]
    assert [at for _, at in listed[1:]] == sorted((at for _, at in listed[1:]), reverse=True)


async def test_a_key_is_found_by_its_other_form_and_the_given_one_comes_first(prices):
    await prices.put("a/x:y", Price(input=Decimal(1)), ADMIN)
    assert (await prices.in_force("a:x:y")).price.input == Decimal(1)
    await prices.put("a:x:y", Price(input=Decimal(2)), ADMIN)
    assert (await prices.in_force("a:x:y")).price.input == Decimal(2)
    assert (await prices.in_force("a/x:y")).price.input == Decimal(1)
    with pytest.raises(NotFound, match="with effective_at 2020-01-01T00:00:00\\+00:00 not found"):
        await prices.delete("a:x:y", ADMIN, effective_at=datetime(2020, 1, 1, tzinfo=UTC))
    await prices.delete("a:x:y", ADMIN)
    assert [one.model_key for one in await prices.list_prices()] == ["a/x:y"]
    await prices.delete("a:x:y", ADMIN, effective_at=utc(StillClock(NOW.timestamp()).now()))
    assert await prices.list_prices() == []


async def test_a_key_is_changed_in_what_is_named_alone(keys):
    key, info = await keys.create(KeyOptions(name="ci", scopes=frozenset({"cache"})))
    change = KeyChange(
        allowed_models=frozenset({"m2", "m1"}),
        limits=RateLimits(requests_per_minute=5),
        ip_allow_list=["10.0.0.0/8"],
    )
    changed = await keys.update(str(info.id), change, ADMIN)
    assert (changed.name, changed.scopes) == ("ci", ["cache"])
    assert changed.allowed_models == ["m1", "m2"]
    assert changed.limits == RateLimits(requests_per_minute=5)
    networks = (await keys.fetch_many([key.public_id]))[key.public_id].networks
    assert [str(network) for network in networks] == ["10.0.0.0/8"]
    freed = await keys.update(
        str(info.id), KeyChange(allowed_models=frozenset({EVERY_MODEL}), ip_allow_list=[]), ADMIN
    )
    assert (freed.allowed_models, freed.ip_allow_list) == (None, [])
    await keys.delete(str(info.id), ADMIN)
    for key_id in (str(info.id), "nonsense"):
        with pytest.raises(NotFound, match=f"API key with id '{key_id}' not found"):
            await keys.get(key_id)


async def test_a_rotated_key_keeps_its_name_and_both_secrets_for_the_overlap(keys, clock):
    key, info = await keys.create()
    rotated, after = await keys.rotate(str(info.id), ADMIN, overlap=timedelta(seconds=60))
    assert (after.id, rotated.public_id) == (info.id, key.public_id)
    found = (await keys.fetch_many([key.public_id]))[key.public_id]
    assert is_secret(rotated.secret.encode(), found.secret_sha256)
    assert is_secret(key.secret.encode(), found.previous_sha256)
    assert found.previous_valid_until == clock.now() + 60
    await keys.rotate(str(info.id), ADMIN)
    found = (await keys.fetch_many([key.public_id]))[key.public_id]
    assert (found.previous_sha256, found.previous_valid_until) == (None, 0.0)


async def test_every_change_has_its_entry_with_both_sides_and_no_secret(
    keys, users, budgets, prices, engine
):
    key, info = await keys.create(KeyOptions(name="ci"), actor=ADMIN)
    rotated, _ = await keys.rotate(str(info.id), ADMIN, overlap=timedelta(hours=1))
    await keys.update(str(info.id), KeyChange(name="cd"), ADMIN)
    await keys.revoke(str(info.id), ADMIN)
    await keys.delete(str(info.id), ADMIN)
    budget = await budgets.create(BudgetTerms(max_budget=Decimal("0.1")), ADMIN)
    await budgets.update(str(budget.budget_id), BudgetTerms(max_budget=Decimal("0.2")), ADMIN)
    await budgets.delete(str(budget.budget_id), ADMIN)
    await users.update(f"apikey-{info.id}", UserChange(blocked=True), ADMIN)
    await users.delete(f"apikey-{info.id}", ADMIN)
    await prices.put("a:m", Price(input=Decimal("0.1")), ADMIN)
    await prices.delete("a:m", ADMIN)
    found = (await entries(engine))[::-1]
    assert [one.action for one in found] == [
        "user.create", "key.create", "key.rotate", "key.update", "key.revoke", "key.delete",
        "budget.create", "budget.update", "budget.delete", "user.update", "user.delete",
        "pricing.put", "pricing.delete",
    ]  # fmt: skip
    assert {(one.actor, one.address, one.request_id) for one in found} == {
        ("master", "192.0.2.7", "0198-request")
    }
    assert all(one.before or one.after for one in found)
    [renamed] = await entries(engine, action="key.update")
    assert renamed.object_id == str(info.id)
    assert renamed.before is not None
    assert renamed.after is not None
    assert json.loads(bytes(renamed.before))["name"] == "ci"
    assert json.loads(bytes(renamed.after))["name"] == "cd"
    [raised] = await entries(engine, object_type="budget", action="budget.update")
    assert raised.after is not None
    assert b'"max_budget": 0.2,' in bytes(raised.after)
    async with engine.connect() as connection:
        everything = await connection.scalar(
            text("SELECT string_agg(a::text, '') FROM audit_log a")
        )
    for secret in (key.secret, rotated.secret, key.secret_sha256.hex(), "sha256"):
        assert secret not in everything


async def test_a_change_that_fails_leaves_no_entry(users, budgets, engine):
    with pytest.raises(NotFound):
        await users.create(NewUser(user_id="u1", budget_id="nonsense"), ADMIN)
    with pytest.raises(NotFound):
        await budgets.delete("nonsense", ADMIN)
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(audit_log)) == 0


async def test_a_change_whose_entry_cannot_be_written_does_not_happen(users, engine):
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_log ADD CHECK (actor <> 'gateway')"))
    with pytest.raises(Exception, match="violates check constraint"):
        await users.create(NewUser(user_id="u1"), GATEWAY)
    assert await users.list_users() == []


async def test_spend_is_what_was_billed_to_a_user_or_a_key_since_its_beginning(clickhouse_url):
    await migrate_clickhouse(clickhouse_url)
    clickhouse = ClickHouse(clickhouse_url)
    odd = 'o\'dd \\ "ü"\n'
    rows = [
        spend_row(1, user="u1", billed=True),
        spend_row(20, user="u1", billed=True),
        spend_row(300, user="u1", billed=False),
        spend_row(4000, user="u1", billed=True, tenant="other"),
        spend_row(50000, user=odd, billed=True),
    ]
    await SpendTable(clickhouse).insert(rows, token="one")
    later = ADMITTED + timedelta(microseconds=20)
    spent = await UserSpend(clickhouse).spent(
        [
            Spender("default", "u1", None),
            Spender("other", "u1", None),
            Spender("default", odd, None),
            Spender("default", "nobody", None),
        ]
    )
    assert spent == [
        Decimal("0.000000021"), Decimal("0.000004"), Decimal("0.00005"), Decimal(0)
    ]  # fmt: skip
    assert await UserSpend(clickhouse).spent([Spender("default", "u1", later)]) == [
        Decimal("0.00000002")
    ]
    assert await UserSpend(clickhouse).spent([]) == []
    of_keys = [KeySpender("nobody", None), KeySpender("key_1", None), KeySpender("key_2", later)]
    assert await UserSpend(clickhouse).spent_by_keys(of_keys) == [
        Decimal(0), Decimal("0.000054021"), Decimal(0)
    ]  # fmt: skip
    since_later = await UserSpend(clickhouse).spent_by_keys([KeySpender("key_1", later)])
    assert since_later == [Decimal("0.00005402")]
    assert await UserSpend(clickhouse).spent_by_keys([]) == []
    await clickhouse.close()


async def test_a_users_spend_outlives_the_rows_that_are_no_longer_kept(clickhouse_url):
    await migrate_clickhouse(clickhouse_url)
    clickhouse = ClickHouse(clickhouse_url)
    table = SpendTable(clickhouse)
    now = datetime.now(UTC)
    old, fresh = now - timedelta(days=40), now - timedelta(days=2)
    rows = [
        spend_row(1, user="u1", billed=True, created_at=old),
        spend_row(20, user="u1", billed=True, created_at=old + timedelta(hours=3)),
        spend_row(300, user="u1", billed=True, created_at=fresh),
        spend_row(4000, user="u2", billed=True, created_at=old),
    ]
    await table.insert(rows, token="one")
    lifetime = [Spender("default", "u1", None), Spender("default", "u2", None)]
    asked = [*lifetime, Spender("default", "u1", old + timedelta(hours=1))]

    async def spent() -> list[Decimal]:
        # One at a time where a user is asked for twice.
        return [(await UserSpend(clickhouse).spent([one]))[0] for one in asked]

    whole = [Decimal("0.000000321"), Decimal("0.000004"), Decimal("0.00000032")]
    assert await spent() == whole
    await Rollups(clickhouse).refresh(most=100)
    assert await spent() == whole, "what is in both tables counts once"
    assert await keep_rows(clickhouse, days=30)
    await clickhouse.command("OPTIMIZE TABLE spend_rows FINAL")
    assert await table.count() == 1
    assert await spent() == whole
    await table.insert([spend_row(5, user="u1", billed=True, created_at=fresh)], token="two")
    assert await spent() == [
        amount + (at != 1) * Decimal("0.000000005") for at, amount in enumerate(whole)
    ]
    await clickhouse.close()
