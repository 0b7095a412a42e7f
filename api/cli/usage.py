"""`gateway usage`: what was used and what it cost, summed up by something."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer

from api.cli.backfill import backfill
from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.usage_list import list_usage
from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.usage_filter import UsageFilter
from shared.clickhouse.usage_summary import Line, UsageSummary
from shared.clock import SystemClock, utc
from shared.money import plain
from shared.settings import Settings

HEAD = ("requests", "errors", "input tokens", "output tokens", "cost (USD)")


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(invoke_without_command=True)
    family.callback()(usage)
    family.command("list")(list_usage)
    family.command("backfill")(backfill)
    app.add_typer(family, name="usage")


def usage(
    ctx: typer.Context,
    *,
    by: Annotated[
        str,
        typer.Option(
            help="What to sum by: model, user, key, provider, tier, endpoint, tenant, day, hour, "
            "or tag:<name>."
        ),
    ] = "model",
    days: Annotated[int, typer.Option(min=1, max=36500, help="How many days to look back.")] = 30,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many lines at most.")] = 50,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show what was used and what it cost: what cost most first, days and hours in their order."""
    if ctx.invoked_subcommand is not None:
        return
    try:
        found = asyncio.run(_lines(settings_for(data_dir), by=by, days=days, limit=limit))
    except (ClickHouseAway, ValueError) as error:
        typer.echo(f"gateway usage: {error}", err=True)
        raise typer.Exit(1) from None
    for line in usage_table(found, by=by):
        typer.echo(line)


async def _lines(settings: Settings, *, by: str, days: int, limit: int) -> list[Line]:
    since = utc(SystemClock().now()) - timedelta(days=days)
    store = ClickHouse(settings.clickhouse_url.get_secret_value())
    try:
        return await UsageSummary(store).lines(UsageFilter(since=since), by=by, limit=limit)
    finally:
        await store.close()


def usage_table(found: Sequence[Line], *, by: str) -> list[str]:
    """A head and a line for each group: names to the left, figures to the right."""
    rows = [(by, *HEAD), *(_row(line) for line in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if at else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _row(line: Line) -> tuple[str, ...]:
    return (
        _shown(line.group),
        str(line.requests),
        str(line.errors),
        str(line.input_tokens),
        str(line.output_tokens),
        plain(line.cost_usd),
    )


def _shown(group: str) -> str:
    """A client may have written it: what would steer the terminal is spelled out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in group) or "-"
