"""/v1/users: made, listed, changed and deleted, with the master key."""

from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from api.counted_spend import CountedSpend, Money
from api.management import (
    Management,
    actor_of,
    answer,
    limits_of,
    moment,
    nothing,
    number,
    resets_of,
    route_for,
)
from api.schemas.bodies import InPath, Limit, NewUserBody, Skip, Tenant, UserChangeBody, Wanted
from api.schemas.management import documented
from shared.caller import DEFAULT_TENANT
from shared.money import ZERO
from shared.postgres.users import NewUser, UserChange, UserInfo


def router(management: Management, prefix: str) -> APIRouter:
    """An id may hold `/`. `/usage` behind it is another router's, which has to come first."""
    routes = APIRouter(
        prefix=f"{prefix}/users",
        tags=["users"],
        route_class=route_for(management, "master"),
        include_in_schema=prefix == "/v1",
    )
    users = management.users
    shown = partial(documents_of, management.spend)

    @routes.post("", **documented("create_user", "User", "404", "409"))
    async def create_user(request: Request, body: NewUserBody) -> Response:
        """Make a user, or revive a deleted one: without its keys, and with nothing spent."""
        made = await users.create(new_user(body), actor_of(request))
        return answer(_document(made, Money(ZERO, ZERO)))

    @routes.get("", **documented("list_users", "UserList"))
    async def list_users(tenant: Wanted = None, skip: Skip = 0, limit: Limit = 100) -> Response:
        """All users that are not deleted, in the order they were made."""
        return answer(await shown(*await users.list_users(tenant=tenant, skip=skip, limit=limit)))

    # Before the user's own path, which takes every slash.
    @routes.get(
        "/{user_id:path}/budget-resets", **documented("user_resets", "BudgetResetList", "404")
    )
    async def list_resets(
        user_id: InPath, tenant: Tenant = DEFAULT_TENANT, skip: Skip = 0, limit: Limit = 100
    ) -> Response:
        """The windows of a user's budgets that have ended, the newest first; of deleted users too."""
        found = await management.windows.history_of_user(
            user_id, tenant=tenant, skip=skip, limit=limit
        )
        return answer(resets_of(found))

    @routes.get("/{user_id:path}", **documented("get_user", "User", "404"))
    async def get_user(user_id: InPath, tenant: Tenant = DEFAULT_TENANT) -> Response:
        """One user, with what was spent."""
        [document] = await shown(await users.get(user_id, tenant=tenant))
        return answer(document)

    @routes.patch("/{user_id:path}", **documented("update_user", "User", "404"))
    async def update_user(
        request: Request, user_id: InPath, body: UserChangeBody, tenant: Tenant = DEFAULT_TENANT
    ) -> Response:
        """Change a user. Naming a budget, the present one too, starts its window anew."""
        # First the change: somebody can be blocked while nothing can be said of their spend.
        change = change_of(body)
        changed = await users.update(user_id, change, actor_of(request), tenant=tenant)
        [document] = await shown(changed)
        return answer(document)

    @routes.delete("/{user_id:path}", **documented("delete_user", None, "404"))
    async def delete_user(
        request: Request, user_id: InPath, tenant: Tenant = DEFAULT_TENANT
    ) -> Response:
        """Hide a user and make all their keys inactive. Their usage stays."""
        await users.delete(user_id, actor_of(request), tenant=tenant)
        return nothing()

    return routes


def new_user(body: NewUserBody) -> NewUser:
    return NewUser(**{**body.model_dump(), "limits": limits_of(body.limits)})


def change_of(body: UserChangeBody) -> UserChange:
    limits = None if body.limits is None else limits_of(body.limits)
    return UserChange(**{**body.model_dump(), "limits": limits})


async def documents_of(spend: CountedSpend, *users: UserInfo) -> list[dict[str, Any]]:
    """Raises what the reader of spend raises."""
    found = await spend.of_users(users)
    return [_document(user, money) for user, money in zip(users, found, strict=True)]


def _document(user: UserInfo, money: Money) -> dict[str, Any]:
    """Otari's members, those its later clients insist on, then our own."""
    return {
        "user_id": user.user_id,
        "alias": user.alias,
        "spend": number(money.spent),
        "budget_id": None if user.budget_id is None else str(user.budget_id),
        "budget_started_at": moment(user.budget_started_at),
        "next_budget_reset_at": moment(user.next_budget_reset_at),
        "blocked": user.blocked,
        "created_at": moment(user.created_at),
        "updated_at": moment(user.updated_at),
        "metadata": user.metadata,
        "reserved": number(money.held),
        # No budget counts requests or tokens.
        "reserved_requests": 0,
        "reserved_tokens": 0,
        "current_requests": 0,
        "current_tokens": 0,
        "tenant": user.tenant,
        "limits": msgspec.structs.asdict(user.limits),
    }
