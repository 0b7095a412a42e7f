"""`gateway usage backfill`: makes the hourly sums right again, and tells which were not."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer
from pydantic import BaseModel, Field

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.store import checked
from api.schemas.bodies import Moment
from shared.clickhouse.backfill import Backfill, Recomputed
from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.usage_filter import END_OF_TIME, EPOCH
from shared.money import plain
from shared.settings import Settings


class Range(BaseModel):
    """The time a command looks at."""

    start: Moment = Field(default=EPOCH, alias="from")
    end: Moment = Field(default=END_OF_TIME, alias="to")


def backfill(
    start: Annotated[
        str | None, typer.Option("--from", help="An ISO 8601 time; UTC without a zone.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="The same; exclusive.")] = None,
    *,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Recompute the hourly sums from spend rows; prints each hour that was wrong.

    Hours whose rows are not kept any more keep their sums.
    """
    asked = checked(Range, **{"from": start, "to": end})
    try:
        work = _recompute(settings_for(data_dir), asked.start, asked.end, say=typer.echo)
        hours, changed = asyncio.run(work)
    except ClickHouseAway as error:
        typer.echo(f"gateway usage backfill: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"recomputed {hours} hours, {changed} changed")


async def _recompute(
    settings: Settings, start: datetime, end: datetime, *, say: Callable[[str], object]
) -> tuple[int, int]:
    """How many hours, and how many of them had been wrong."""
    store, hours, changed = ClickHouse(settings.clickhouse_url.get_secret_value()), 0, 0
    try:
        work = Backfill(store).run(start, end, keep_days=settings.ledger_keep_days)
        async for one in work:
            hours += 1
            if one.has_changed:
                changed += 1
                say(told(one))
    finally:
        await store.close()
    return hours, changed


def told(one: Recomputed) -> str:
    before, after = one.before, one.after
    if (before.requests, before.cost_usd) == (after.requests, after.cost_usd):
        what = "the same totals, in other lines"
    else:
        what = (
            f"requests {before.requests} -> {after.requests}, "
            f"cost {plain(before.cost_usd)} -> {plain(after.cost_usd)}"
        )
    return f"{one.hour:%Y-%m-%dT%H:00Z}  {what}"
