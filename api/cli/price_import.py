"""`gateway pricing import`: the list prices of genai-prices beside what is charged now."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from api.cli.environment import settings_for
from api.cli.list_price import load_list
from api.cli.options import DEFAULT_DATA_DIR, At, DataDir
from api.cli.price_plan import Change, Plan, Wanted, ways
from api.cli.store import CLOCK, Times, checked, in_store, stored_catalog, table
from api.price_book import DatedPrices
from shared.clock import utc
from shared.money import plain
from shared.postgres.audit import CLI
from shared.postgres.engine import Engine
from shared.postgres.pricing import PriceStore

HEAD = ("model", "from", "kind", "now", "new", "")


def import_prices(
    *,
    provider: Annotated[
        str | None, typer.Option(help="Only models of this provider of the catalog.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only this model: a name of the catalog or `provider:model`.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Look at this provider's list, by its id in genai-prices; otherwise at the one "
            "whose address is called or whose id is the provider's name.",
        ),
    ] = None,
    effective_at: At = None,
    accept: Annotated[bool, typer.Option("--accept", help="Write what differs.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Compare what is charged with the list prices that genai-prices brings, and take them over.

    Nothing is written without --accept, and nothing is asked of anybody: the package brings its
    list. Ends with 0 where nothing differs or all is written, with 1 where something differs.
    """
    at = checked(Times, at=effective_at).at or utc(CLOCK.now())
    wanted = Wanted(provider=provider, model=model, source=source, at=at)
    secret = settings_for(data_dir).secret

    async def ask(engine: Engine) -> list[Change]:
        store, document = PriceStore(engine, CLOCK), await stored_catalog(engine)
        plan = Plan(load_list(), DatedPrices(await store.charged_from(at)), document, secret)
        changes = [one for way in ways(document, wanted) for one in plan.changes(way, wanted)]
        _tell(plan.notes)
        for change in changes if accept else ():
            await store.put(change.key, change.price, CLI, effective_at=change.effective_at)
        return changes

    changes = in_store(data_dir, ask)
    _show(changes)
    if not changes:
        typer.echo("nothing differs")
    elif accept:
        typer.echo(f"{len(changes)} prices are written")
    else:
        typer.echo("nothing is written; --accept does it")
        raise typer.Exit(1)


def _tell(notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        typer.echo(f"note: {note}", err=True)


def _show(changes: Sequence[Change]) -> None:
    rows = [
        (
            change.key, change.effective_at.isoformat(timespec="seconds"), one.kind,
            "-" if one.now is None else plain(one.now),
            "-" if one.new is None else plain(one.new), one.percent,
        )
        for change in changes
        for one in change.differences
    ]  # fmt: skip
    for line in table(HEAD, rows) if rows else ():
        typer.echo(line)
