"""`gateway audit`: who changed what, as `GET /v1/audit` has it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.store import in_store, show
from api.routes.audit import document_of
from shared.postgres.audit import AuditEntry, AuditFilter, AuditLog
from shared.postgres.engine import Engine

Filter = Annotated[str | None, typer.Option(help="Only these.")]


def add_to(app: typer.Typer) -> None:
    app.command("audit")(audit)


def audit(
    *,
    actor: Annotated[
        str | None, typer.Option(help="Who did it: `master`, `cli` or `gateway`.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="What was done, as `key.create`.")] = None,
    object_type: Annotated[
        str | None, typer.Option(help="To what: `key`, `user`, `budget`, `price`.")
    ] = None,
    object_id: Filter = None,
    skip: Annotated[int, typer.Option(min=0, help="How many to pass over.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the changes of keys, users, budgets and prices, the newest first."""
    wanted = AuditFilter(actor=actor, action=action, object_type=object_type, object_id=object_id)

    async def ask(engine: Engine) -> Sequence[AuditEntry]:
        return await AuditLog(engine).list_entries(wanted, skip=skip, limit=limit)

    show([document_of(entry) for entry in in_store(data_dir, ask)])
