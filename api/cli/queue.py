"""`gateway queue`: what waits, what runs, who holds it, and what waits behind it."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from shared.settings import Settings
from shared.valkey.inspect import (
    LaneView,
    ShardView,
    StoreAway,
    live_processes,
    open_store,
    view_shard,
)
from shared.valkey.keys import ShardKeys
from shared.valkey.processes import ProcessEntry

WATCH_SECONDS = 1.0
HEAD = ("lane", "waiting", "running", "lag", "oldest waiting", "oldest running", "claims")
CLEAR = "\x1b[H\x1b[2J"
ID_DIGITS = 8
"""Process ids are long and begin with the time; their end tells two apart."""


def add_to(app: typer.Typer) -> None:
    app.command("queue")(queue)


def queue(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show the queue: jobs waiting and running in each lane, their ages, and who holds them."""
    settings = settings_for(data_dir)
    try:
        asyncio.run(_watch(settings) if watch else _show(settings))
    except KeyboardInterrupt:
        raise typer.Exit from None
    except StoreAway as error:
        typer.echo(f"gateway queue: {error}", err=True)
        raise typer.Exit(1) from None


async def _show(settings: Settings) -> None:
    typer.echo(await _page(settings))


async def _watch(settings: Settings) -> None:
    while True:
        page = await _page(settings)
        typer.echo(CLEAR + page)
        await asyncio.sleep(WATCH_SECONDS)


async def _page(settings: Settings) -> str:
    async with open_store(settings.valkey_url.get_secret_value()) as store:
        views = [await view_shard(store, ShardKeys(n)) for n in range(settings.shards)]
        processes = await live_processes(store)
    return "\n".join([*(shard_text(view) for view in views), processes_text(processes)])


def shard_text(view: ShardView) -> str:
    """One shard's lanes as a table, and its totals."""
    rows = [HEAD, *(_row(lane) for lane in view.lanes)]
    totals = (
        f"buried {view.buried}   sealed bytes {view.sealed_bytes}   "
        f"spend backlog {view.spend_backlog}   spend quarantined {view.spend_quarantined}   "
        f"receipt backlog {view.receipt_backlog}   "
        f"receipts quarantined {view.receipts_quarantined}"
    )
    return f"shard {view.shard}\n{_table(rows)}\n{totals}\n"


def processes_text(processes: dict[str, ProcessEntry]) -> str:
    """Who takes part: role, short id, host and process id."""
    rows = [("role", "id", "host", "pid")]
    rows += [
        (entry.role, _short(name), entry.host, str(entry.pid))
        for name, entry in sorted(processes.items(), key=lambda item: (item[1].role, item[0]))
    ]
    return _table(rows)


def _row(lane: LaneView) -> tuple[str, ...]:
    claims = ", ".join(f"{_short(name)}: {held}" for name, held in sorted(lane.claims.items()))
    return (
        lane.lane,
        str(lane.waiting),
        str(lane.running),
        "-" if lane.lag is None else str(lane.lag),
        _seconds(lane.oldest_waiting),
        _seconds(lane.oldest_running),
        claims or "-",
    )


def _table(rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _seconds(age: float | None) -> str:
    return "-" if age is None else f"{age:.1f} s"


def _short(process: str) -> str:
    return process[-ID_DIGITS:]
