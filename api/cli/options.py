"""Options that several commands share, so that they are named and explained once."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA_DIR = Path(".data")

PerMinute = Annotated[int | None, typer.Option(help="Requests per minute.")]
TokensPerMinute = Annotated[int | None, typer.Option(help="Tokens per minute.")]
Concurrent = Annotated[int | None, typer.Option(help="Requests at a time.")]

DataDir = Annotated[
    Path,
    typer.Option(
        help="The data directory of a `gateway up`. Its addresses and keys are used where the "
        "environment names none.",
    ),
]

At = Annotated[str | None, typer.Option(help="An ISO 8601 time; UTC without a zone.")]


def limits_given(
    requests: int | None, tokens: int | None, concurrent: int | None
) -> dict[str, int | None] | None:
    """None where none is named."""
    given = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "concurrent": concurrent,
    }
    return given if any(limit is not None for limit in given.values()) else None
