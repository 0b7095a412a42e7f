"""Options that several commands share, so that they are named and explained once."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA_DIR = Path(".data")

DataDir = Annotated[
    Path,
    typer.Option(
        help="The data directory of a `gateway up`. Its addresses and keys are used where the "
        "environment names none.",
    ),
]

At = Annotated[str | None, typer.Option(help="An ISO 8601 time; UTC without a zone.")]
