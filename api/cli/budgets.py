"""`gateway budgets`: limits, of which each user and key that has one spends its own."""

from typing import Annotated

import typer

from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.store import CLOCK, PAGE, checked, in_store, pages, show, table
from api.routes.budgets import document_of, terms_of
from api.schemas.bodies import BudgetBody, NewBudgetBody
from shared.caller import DEFAULT_TENANT
from shared.postgres.audit import CLI
from shared.postgres.budgets import BudgetInfo, BudgetStore
from shared.postgres.engine import Engine

BudgetId = Annotated[str, typer.Argument(help="The budget's id.")]
MaxBudget = Annotated[
    str | None,
    typer.Option(help="US dollars that each who has it may spend in a window. No limit else."),
]
SoftBudget = Annotated[
    str | None, typer.Option(help="US dollars from which on answers carry a warning.")
]
Duration = Annotated[
    int | None, typer.Option(help="Seconds after which spend begins at 0 again. Never else.")
]


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(help="Make, list, change and delete budgets.", no_args_is_help=True)
    for name, command in (
        ("list", list_budgets), ("show", show_budget), ("create", create),
        ("update", update), ("delete", delete),
    ):  # fmt: skip
        family.command(name)(command)
    app.add_typer(family, name="budgets")


def list_budgets(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all budgets, oldest first."""

    async def ask(engine: Engine) -> list[BudgetInfo]:
        store = BudgetStore(engine, CLOCK)
        return await pages(lambda skip: store.list_budgets(skip=skip, limit=PAGE))

    rows = [
        (
            str(one.budget_id),
            one.tenant,
            _or_dash(one.max_budget),
            _or_dash(one.soft_budget),
            _or_dash(one.budget_duration_sec),
        )
        for one in in_store(data_dir, ask)
    ]
    for line in table(("budget", "tenant", "max USD", "soft USD", "seconds"), rows):
        typer.echo(line)


def show_budget(budget: BudgetId, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show one budget, as the API does."""
    show(document_of(in_store(data_dir, lambda engine: BudgetStore(engine, CLOCK).get(budget))))


def create(
    *,
    max_budget: MaxBudget = None,
    soft_budget: SoftBudget = None,
    duration_sec: Duration = None,
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to.")] = DEFAULT_TENANT,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a budget and print its id."""
    body = checked(
        NewBudgetBody,
        max_budget=max_budget,
        soft_budget=soft_budget,
        budget_duration_sec=duration_sec,
        tenant=tenant,
    )

    async def ask(engine: Engine) -> BudgetInfo:
        return await BudgetStore(engine, CLOCK).create(terms_of(body), CLI, tenant=body.tenant)

    typer.echo(str(in_store(data_dir, ask).budget_id))


def update(
    budget: BudgetId,
    *,
    max_budget: MaxBudget = None,
    soft_budget: SoftBudget = None,
    duration_sec: Duration = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Change what is named of a budget. Windows that run keep their end."""
    body = checked(
        BudgetBody,
        max_budget=max_budget,
        soft_budget=soft_budget,
        budget_duration_sec=duration_sec,
    )

    async def ask(engine: Engine) -> BudgetInfo:
        return await BudgetStore(engine, CLOCK).update(budget, terms_of(body), CLI)

    show(document_of(in_store(data_dir, ask)))


def delete(budget: BudgetId, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Delete a budget. Those who had it are unlimited then."""
    in_store(data_dir, lambda engine: BudgetStore(engine, CLOCK).delete(budget, CLI))
    typer.echo(f"{budget} is deleted")


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
