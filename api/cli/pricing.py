"""`gateway pricing`: what models cost from when on."""

from collections.abc import Sequence
from typing import Annotated

import typer
from msgspec.structs import replace

from api.cli.options import DEFAULT_DATA_DIR, At, DataDir
from api.cli.price_import import import_prices
from api.cli.store import (
    CLOCK,
    PAGE,
    Times,
    checked,
    in_store,
    pages,
    show,
    stored_catalog,
    table,
)
from api.routes.pricing import canonical, document_of, price_of
from api.schemas.bodies import PriceBody, UsdPerMillion
from shared.errors import NotFound
from shared.postgres.audit import CLI
from shared.postgres.engine import Engine
from shared.postgres.pricing import PriceInfo, PriceStore

PerMillion = Annotated[str | None, typer.Option(help="US dollars per million tokens.")]
ModelKey = Annotated[str, typer.Argument(help="A model of the catalog, or `provider:model`.")]


class Rates(Times):
    """What `update` takes, by the names that a price has."""

    input: UsdPerMillion | None = None
    output: UsdPerMillion | None = None
    cached_input: UsdPerMillion | None = None
    cache_write: UsdPerMillion | None = None


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(help="Set, list and delete prices of models.", no_args_is_help=True)
    for name, command in (
        ("list", list_prices), ("show", show_price), ("history", history), ("create", create),
        ("update", update), ("delete", delete), ("import", import_prices),
    ):  # fmt: skip
        family.command(name)(command)
    app.add_typer(family, name="pricing")


def list_prices(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all prices, by model, then the newest first; US dollars per million tokens."""

    async def ask(engine: Engine) -> list[PriceInfo]:
        store = PriceStore(engine, CLOCK)
        return await pages(lambda skip: store.list_prices(skip=skip, limit=PAGE))

    _echo_table(in_store(data_dir, ask))


def show_price(model: ModelKey, *, as_of: At = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show the price of a model that is in force, now or at a time."""
    at = checked(Times, at=as_of).at
    found = in_store(data_dir, lambda engine: PriceStore(engine, CLOCK).in_force(model, as_of=at))
    show(document_of(found))


def history(model: ModelKey, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all prices of a model, the newest first."""
    _echo_table(in_store(data_dir, lambda engine: PriceStore(engine, CLOCK).history(model)))


def create(
    model: ModelKey,
    input_price: Annotated[str, typer.Argument(help="US dollars per million input tokens.")],
    output_price: Annotated[str, typer.Argument(help="US dollars per million output tokens.")],
    *,
    cache_read_price: Annotated[
        str | None, typer.Option(help="Per million tokens read from the provider's cache.")
    ] = None,
    cache_write_price: Annotated[
        str | None, typer.Option(help="Per million tokens written to it.")
    ] = None,
    effective_at: At = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Add a price, from now on or from a time; the price of this very time is changed."""
    body = checked(
        PriceBody,
        model_key=model,
        input_price_per_million=input_price,
        output_price_per_million=output_price,
        cache_read_price_per_million=cache_read_price,
        cache_write_price_per_million=cache_write_price,
        effective_at=effective_at,
    )

    async def ask(engine: Engine) -> PriceInfo:
        key, at = canonical(await stored_catalog(engine), body.model_key), body.effective_at
        return await PriceStore(engine, CLOCK).put(key, price_of(body), CLI, effective_at=at)

    show(document_of(in_store(data_dir, ask)))


def update(
    model: ModelKey,
    *,
    input_price: PerMillion = None,
    output_price: PerMillion = None,
    cache_read_price: PerMillion = None,
    cache_write_price: PerMillion = None,
    effective_at: At = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Change the price of one time, by default the one in force; what is not given stays."""
    given = checked(
        Rates,
        input=input_price, output=output_price,
        cached_input=cache_read_price, cache_write=cache_write_price, at=effective_at,
    )  # fmt: skip

    async def ask(engine: Engine) -> PriceInfo:
        store = PriceStore(engine, CLOCK)
        found = await store.in_force(model, as_of=given.at)
        if given.at is not None and found.effective_at != given.at:
            raise NotFound(f"{model} has no price from {given.at.isoformat()} on")
        price = replace(found.price, **given.model_dump(exclude_none=True, exclude={"at"}))
        return await store.put(found.model_key, price, CLI, effective_at=found.effective_at)

    show(document_of(in_store(data_dir, ask)))


def delete(
    model: ModelKey, *, effective_at: At = None, data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """Delete the price of one time, or all prices of a model."""
    at = checked(Times, at=effective_at).at
    in_store(data_dir, lambda engine: PriceStore(engine, CLOCK).delete(model, CLI, effective_at=at))
    typer.echo(f"{model} is deleted")


def _echo_table(prices: Sequence[PriceInfo]) -> None:
    rows = [
        (
            one.model_key, one.effective_at.isoformat(),
            f"{one.price.input:f}", f"{one.price.output:f}",
        )
        for one in prices
    ]  # fmt: skip
    for line in table(("model", "from", "input", "output"), rows):
        typer.echo(line)
