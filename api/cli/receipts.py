"""`gateway receipts`: what proves calls on confidential models."""

import typer

from api.cli.receipts_verify import verify


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(help="Verify receipts.", no_args_is_help=True)
    family.command("verify")(verify)
    app.add_typer(family, name="receipts")
