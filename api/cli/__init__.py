"""The `gateway` command: every way an operator or a newcomer starts, feeds and inspects a gateway."""

import sys
from collections.abc import Iterable
from importlib import import_module

import typer

FAMILIES = {
    "up": "up",
    "release": "release",
    "send": "send",
    "queue": "queue",
    "usage": "usage",
    "audit": "audit",
    "receipts": "receipts",
    "keys": "keys",
    "users": "users",
    "budgets": "budgets",
    "pricing": "pricing",
    "reconcile": "reconcile",
    "config": "config",
    "catalog": "catalog",
    "health": "health",
    "api": "run",
    "worker": "run",
    "metering": "run",
    "background": "run",
    "simulator": "run",
}
"""Command to the file of its family, in the order of the help page."""


def commands(names: Iterable[str] = FAMILIES) -> typer.Typer:
    """The commands of these names, with those of the same file.

    A file is imported only here: health checks and process starts run often, and should not pay
    for the libraries of a migration.
    """
    app = typer.Typer(
        name="gateway", add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True
    )
    app.callback()(gateway)
    for family in dict.fromkeys(FAMILIES[name] for name in names):
        import_module(f"{__name__}.{family}").add_to(app)
    return app


def gateway() -> None:
    """A self-hosted AI gateway whose every inference is a job on a queue."""


def main() -> None:
    """The console script."""
    wanted = [name for name in sys.argv[1:2] if name in FAMILIES]
    commands(wanted or FAMILIES)()
