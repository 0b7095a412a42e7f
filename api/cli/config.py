"""`gateway config`: checks, compares, applies and shows the catalog of providers and models."""

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from api.cli.catalog_diff import differences
from api.cli.environment import has_key, settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.clock import SystemClock
from shared.document import Document, seed_prices
from shared.postgres.audit import GATEWAY
from shared.postgres.catalogs import CatalogStore
from shared.postgres.pricing import PriceStore
from shared.postgres.session import PostgresAway, open_postgres

FREE_DRY_RUNS = """\
note: models have prices, and dry runs are free for every key; set dryrun.allow = "scoped" where
tenants are charged, and only keys with the scope "dryrun" may use them"""

File = Annotated[
    Path | None,
    typer.Argument(exists=True, dir_okay=False, help="A gateway.toml; the built-in one otherwise."),
]


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Check, compare, apply and show the catalog of providers and models.",
        no_args_is_help=True,
    )
    family.command("check")(check)
    family.command("apply")(apply)
    family.command("diff")(diff)
    family.command("show")(show)
    app.add_typer(family, name="config")


def check(file: File = None, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Read a catalog, and say what is wrong with it or which hash it has. Changes nothing."""
    catalog = _loaded(file)
    document = catalog.document
    typer.echo(
        f"{catalog.hash}: {len(document.models)} models, {len(document.providers)} providers"
    )
    _note_what_is_off(document, data_dir)
    if document.dryrun.allow == "all" and has_prices(document):
        typer.echo(FREE_DRY_RUNS, err=True)


def apply(file: File = None, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make a catalog the active one. Every process switches to it within a second.

    A file that is not a catalog is refused with the reason, and the active one stays.
    """
    catalog = _loaded(file)
    try:
        seeded = asyncio.run(_apply(_database_url(data_dir), catalog))
    except PostgresAway as error:
        _fail(str(error))
    typer.echo(f"{catalog.hash} is active")
    for key in seeded:
        typer.echo(f"{key} has its first price")
    _note_what_is_off(catalog.document, data_dir)


def diff(file: File = None, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Say what applying a catalog would change: + is new, - is gone, ~ has changed."""
    catalog = _loaded(file)
    active = _read_active(data_dir)
    lines = differences(active, catalog)
    typer.echo("\n".join(lines) if lines else f"nothing: {active.hash} is active")


def show(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the active catalog as JSON, under its hash."""
    catalog = _read_active(data_dir)
    typer.echo(f"# {catalog.hash}", err=True)
    typer.echo(msgspec.json.format(catalog.to_json(), indent=2))


def _read_active(data_dir: Path) -> Catalog:
    """Ends the command where there is none."""
    try:
        catalog = asyncio.run(_active(_database_url(data_dir)))
    except (PostgresAway, CatalogInvalid) as error:
        _fail(str(error))
    if catalog is None:
        _fail("no catalog is active yet: run `gateway release`")
    return catalog


def load_catalog(file: Path | None) -> Catalog:
    """The catalog of a file, or the one this package brings. Raises CatalogInvalid."""
    return Catalog.from_toml(built_in() if file is None else file.read_text())


def built_in() -> str:
    """The text of the catalog this package brings."""
    return (files("shared") / "gateway.toml").read_text()


def _loaded(file: Path | None) -> Catalog:
    try:
        return load_catalog(file)
    except (CatalogInvalid, UnicodeDecodeError) as error:
        typer.echo(f"{file or 'the built-in catalog'}: {error}", err=True)
        raise typer.Exit(1) from None


def _note_what_is_off(document: Document, data_dir: Path) -> None:
    """What a reader of the file would not see: nothing of it is an error."""
    if not document.models:
        typer.echo("note: there is no model in it", err=True)
    for name, provider in document.providers.items():
        variable = provider.api_key_env
        if provider.enabled and variable is not None and not has_key(variable, data_dir):
            typer.echo(f"note: provider {name} is off while {variable} is not set", err=True)


def has_prices(document: Document) -> bool:
    """Whether any call costs something, as far as the catalog says."""
    return any(one.price.input or one.price.output for one in document.pricing.values()) or any(
        price.input or price.output or price.cached_input
        for model in document.models.values()
        for price in (model.price, *(route.price for route in model.providers))
        if price is not None
    )


async def _apply(database_url: str, catalog: Catalog) -> list[str]:
    """The keys whose first price it brought."""
    async with open_postgres(database_url, "cli") as engine:
        await CatalogStore(engine).apply(catalog, note="gateway config apply")
        return await PriceStore(engine, SystemClock()).seed(seed_prices(catalog.document), GATEWAY)


async def _active(database_url: str) -> Catalog | None:
    async with open_postgres(database_url, "cli") as engine:
        return await CatalogStore(engine).active()


def _database_url(data_dir: Path) -> str:
    return settings_for(data_dir).database_url.get_secret_value()


def _fail(message: str) -> NoReturn:
    typer.echo(f"gateway config: {message}", err=True)
    raise typer.Exit(1)
