"""Budgets of keys, limits of users and soft limits on a real Postgres: what accounts are made of."""

from datetime import timedelta
from decimal import Decimal

import pytest

from shared.account import RateLimits
from shared.errors import InvalidRequest, NotFound
from shared.postgres.audit import Actor, AuditFilter, AuditLog
from shared.postgres.budgets import BudgetTerms
from shared.postgres.keys import KeyChange, KeyOptions
from shared.postgres.users import NewUser, UserChange
from tests.integration.moment import NOW

ADMIN = Actor("master")


async def test_a_soft_limit_is_kept_and_never_more_than_the_most(budgets):
    made = await budgets.create(BudgetTerms(max_budget=Decimal(2), soft_budget=Decimal(1)), ADMIN)
    budget = str(made.budget_id)
    assert (await budgets.get(budget)).soft_budget == Decimal(1)
    with pytest.raises(InvalidRequest, match="soft_budget is more than max_budget") as refused:
        await budgets.update(budget, BudgetTerms(soft_budget=Decimal(3)), ADMIN)
    assert refused.value.param == "soft_budget"
    with pytest.raises(InvalidRequest):  # a most of 0 is one, too
        await budgets.update(budget, BudgetTerms(max_budget=Decimal(0)), ADMIN)
    with pytest.raises(InvalidRequest):
        await budgets.create(BudgetTerms(max_budget=Decimal(0), soft_budget=Decimal(1)), ADMIN)
    moved = BudgetTerms(max_budget=Decimal(5), soft_budget=Decimal(5))
    assert (await budgets.update(budget, moved, ADMIN)).soft_budget == Decimal(5)
    endless = await budgets.create(BudgetTerms(soft_budget=Decimal(9)), ADMIN)
    assert (endless.max_budget, endless.soft_budget) == (None, Decimal(9))
    assert len(await budgets.list_budgets()) == 2


async def test_limits_of_a_user_are_replaced_whole_and_reach_its_account(users, keys):
    made = await users.create(NewUser(user_id="u1", limits=RateLimits(concurrent=2)), ADMIN)
    assert made.limits == RateLimits(concurrent=2)
    assert (await users.update("u1", UserChange(alias="x"), ADMIN)).limits == made.limits
    fewer = RateLimits(requests_per_minute=7, tokens_per_minute=70)
    assert (await users.update("u1", UserChange(limits=fewer), ADMIN)).limits == fewer
    key, _ = await keys.create(KeyOptions(user_id="u1"))
    record = (await keys.fetch_many([key.public_id]))[key.public_id]
    assert [(one.kind, one.limits) for one in record.caller.accounts] == [("user", fewer)]
    assert (await users.update("u1", UserChange(limits=RateLimits()), ADMIN)).limits.are_none
    await users.delete("u1", ADMIN)
    assert (await users.create(NewUser(user_id="u1"), ADMIN)).limits.are_none


async def test_naming_a_keys_budget_starts_its_window_and_keeps_the_spend(
    keys, budgets, clock, engine
):
    budget = await budgets.create(BudgetTerms(max_budget=Decimal(1), budget_duration_sec=60), ADMIN)
    named = str(budget.budget_id)
    key, made = await keys.create(KeyOptions(budget_id=named), actor=ADMIN)
    window = (made.budget_started_at, made.next_budget_reset_at, made.spend_since)
    assert window == (NOW, NOW + timedelta(seconds=60), None)
    clock.advance(10)
    renamed = await keys.update(str(made.id), KeyChange(name="x"), ADMIN)
    assert (renamed.budget_id, renamed.budget_started_at) == (budget.budget_id, NOW)
    again = await keys.update(str(made.id), KeyChange(budget_id=named), ADMIN)
    assert again.budget_started_at == NOW + timedelta(seconds=10)
    assert again.spend_since is None
    record = (await keys.fetch_many([key.public_id]))[key.public_id]
    (account,) = record.caller.accounts
    assert (account.kind, account.owner) == ("key", key.public_id)
    assert account.budget is not None
    assert account.budget.started_ms == int(NOW.timestamp()) * 1000 + 10_000
    assert account.budget.max_nano == 10**9
    log = await AuditLog(engine).list_entries(AuditFilter(action="key.update"))
    assert log[0].after is not None
    assert named.encode() in bytes(log[0].after)
    await budgets.delete(named, ADMIN)
    assert (await keys.get(str(made.id))).budget_id is None


async def test_a_budget_of_another_tenant_is_unknown_to_a_key(keys, users, budgets):
    theirs = await budgets.create(BudgetTerms(), ADMIN, tenant="theirs")
    named = str(theirs.budget_id)
    with pytest.raises(NotFound, match=f"Budget with id '{named}' not found"):
        await keys.create(KeyOptions(budget_id=named))
    assert await keys.list_keys() == []
    assert await users.list_users() == [], "the user would have been made with it"
    _, mine = await keys.create()
    with pytest.raises(NotFound, match=f"Budget with id '{named}' not found"):
        await keys.update(str(mine.id), KeyChange(budget_id=named), ADMIN)
    _, other = await keys.create(KeyOptions(tenant="theirs", budget_id=named))
    assert other.budget_id == theirs.budget_id
