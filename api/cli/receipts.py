"""`gateway receipts`: what proves calls on confidential models."""

import typer

from api.cli.receipts_read import get, list_receipts
from api.cli.receipts_verify import verify_receipt


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(help="List, export and verify receipts.", no_args_is_help=True)
    for name, command in (("list", list_receipts), ("get", get), ("verify", verify_receipt)):
        family.command(name)(command)
    app.add_typer(family, name="receipts")
