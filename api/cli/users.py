"""`gateway users`: whom keys belong to and spend is billed to."""

from typing import Annotated, Any

import typer

from api.cli.environment import settings_for
from api.cli.options import (
    DEFAULT_DATA_DIR,
    Concurrent,
    DataDir,
    PerMinute,
    TokensPerMinute,
    limits_given,
)
from api.cli.store import CLOCK, PAGE, checked, in_store, pages, show, table, with_spend
from api.management import resets_of
from api.routes.users import change_of, documents_of, new_user
from api.schemas.bodies import NewUserBody, UserChangeBody
from shared.caller import DEFAULT_TENANT
from shared.postgres.audit import CLI
from shared.postgres.engine import Engine
from shared.postgres.users import UserInfo, UserStore
from shared.postgres.windows import ResetInfo, WindowStore

UserId = Annotated[str, typer.Argument(help="The user's id.")]
Tenant = Annotated[str, typer.Option(help="The tenant the user belongs to.")]
Alias = Annotated[str | None, typer.Option(help="A name for people.")]
Budget = Annotated[str | None, typer.Option(help="The id of the budget the user has.")]
Blocked = Annotated[
    bool | None, typer.Option("--block/--unblock", help="Whether all their keys are refused.")
]


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(help="Make, list, change and delete users.", no_args_is_help=True)
    for name, command in (
        ("list", list_users), ("show", show_user), ("create", create),
        ("update", update), ("delete", delete), ("resets", resets),
    ):  # fmt: skip
        family.command(name)(command)
    app.add_typer(family, name="users")


def list_users(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all users that are not deleted, oldest first."""

    async def ask(engine: Engine) -> list[UserInfo]:
        store = UserStore(engine, CLOCK)
        return await pages(lambda skip: store.list_users(skip=skip, limit=PAGE))

    rows = [
        (
            one.user_id, one.tenant, "blocked" if one.blocked else "active",
            str(one.budget_id or "-"), one.alias or "-",
        )
        for one in in_store(data_dir, ask)
    ]  # fmt: skip
    for line in table(("user", "tenant", "state", "budget", "alias"), rows):
        typer.echo(line)


def show_user(
    user: UserId, *, tenant: Tenant = DEFAULT_TENANT, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Show one user, as the API does, with what was spent."""

    async def ask(engine: Engine) -> list[dict[str, Any]]:
        found = await UserStore(engine, CLOCK).get(user, tenant=tenant)
        return await with_spend(settings_for(data_dir), lambda spend: documents_of(spend, found))

    show(in_store(data_dir, ask)[0])


def create(
    user: UserId,
    *,
    alias: Alias = None,
    budget: Budget = None,
    blocked: Blocked = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent: Concurrent = None,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a user, or revive a deleted one without its keys."""
    body = checked(
        NewUserBody,
        user_id=user,
        alias=alias,
        budget_id=budget,
        blocked=blocked,
        tenant=tenant,
        limits=limits_given(requests_per_minute, tokens_per_minute, concurrent),
    )
    in_store(data_dir, lambda engine: UserStore(engine, CLOCK).create(new_user(body), CLI))
    typer.echo(f"{user} is made")


def update(
    user: UserId,
    *,
    alias: Alias = None,
    budget: Budget = None,
    blocked: Blocked = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent: Concurrent = None,
    tenant: Tenant = DEFAULT_TENANT,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Change what is named of a user. Naming a budget starts its window anew. Limits are replaced
    together."""
    body = checked(
        UserChangeBody,
        alias=alias,
        budget_id=budget,
        blocked=blocked,
        limits=limits_given(requests_per_minute, tokens_per_minute, concurrent),
    )
    change = change_of(body)
    in_store(
        data_dir, lambda engine: UserStore(engine, CLOCK).update(user, change, CLI, tenant=tenant)
    )
    typer.echo(f"{user} is changed")


def resets(
    user: UserId, *, tenant: Tenant = DEFAULT_TENANT, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """List the windows of a user's budgets that have ended, the newest first."""

    async def ask(engine: Engine) -> list[ResetInfo]:
        store = WindowStore(engine)
        return await pages(
            lambda skip: store.history_of_user(user, tenant=tenant, skip=skip, limit=PAGE)
        )

    show(resets_of(in_store(data_dir, ask)))


def delete(
    user: UserId, *, tenant: Tenant = DEFAULT_TENANT, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Hide a user and make all their keys inactive, everywhere within a second."""
    in_store(data_dir, lambda engine: UserStore(engine, CLOCK).delete(user, CLI, tenant=tenant))
    typer.echo(f"{user} is deleted")
