"""Starts one process of the gateway: what a Procfile line or a container runs."""

import os
import sys
from collections.abc import Callable

import typer

MODULES = {
    "api": "api",
    "worker": "workers",
    "metering": "workers.metering",
    "background": "workers.background",
    "simulator": "workers.simulator",
}
HELP = {
    "api": "Serve the HTTP API: authenticate, admit to the queue, relay the replies.",
    "worker": "Claim jobs from the queue, call providers, post replies and settle.",
    "metering": "Move spend rows from their stream into ClickHouse, a batch at a time.",
    "background": "Run the housekeeping: sweeps, trimming and other timed work.",
    "simulator": "Serve a labelled simulation of the providers, faults included.",
}
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
WITH_OPTIONS = frozenset({"api", "simulator"})
"""Their options, `--help` too, belong to the process that is started; the others have none."""


def add_to(app: typer.Typer) -> None:
    """One command per process."""
    for name in MODULES:
        passed_on = {**PASSED_ON, "help_option_names": []} if name in WITH_OPTIONS else None
        app.command(name, help=HELP[name], context_settings=passed_on)(_starter(name))


def _starter(name: str) -> Callable[[typer.Context], None]:
    def start(context: typer.Context) -> None:
        # Replaces this process rather than importing the other: api never imports workers, and
        # signals reach the real thing.
        os.execv(  # noqa: S606 - no shell is wanted
            sys.executable, [sys.executable, "-m", MODULES[name], *context.args]
        )

    return start
