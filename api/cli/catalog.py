"""`gateway catalog`: keeps a catalog file in step with what the providers' own model lists say."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from api.cli.catalog_draft import Draft
from api.cli.config import built_in
from api.cli.files import replace_kept
from api.cli.list_client import NotAnswered, Source, ask_all
from api.cli.model_list import ModelList
from api.providers import Availability
from shared.catalog_checks import CatalogInvalid
from shared.document import Document
from shared.settings import Settings

DIFFERENT = 1
"""As `diff` ends: 0 is the same, 1 is not, 2 is trouble."""
TROUBLE = 2

File = Annotated[
    Path | None,
    typer.Option("--file", exists=True, dir_okay=False, help="A gateway.toml; else the built-in."),
]
Write = Annotated[
    bool,
    typer.Option("--write", help="Change the file, instead of only showing how it would change."),
]


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Keep a catalog file in step with the providers' own model lists.",
        no_args_is_help=True,
    )
    family.callback()(catalog)
    family.command("sync")(sync)
    app.add_typer(family, name="catalog")


def catalog() -> None:
    """Keep a catalog file in step with the providers' own model lists."""


def sync(*, file: File = None, write: Write = False) -> None:
    """Compare a catalog file with what the providers list: names, prices, limits.

    Each provider that a model of the file names, and whose key is in the environment, is asked for
    its model list. The difference is printed as a patch of the file; what else is worth knowing, a
    name that is not listed above all, goes to the standard error. Nothing is written without
    --write, and nothing is applied: that is `gateway config apply`.

    Ends with 0 where the file says what the lists say (or now does), 1 where it does not, 2 where
    a provider could not be asked or the file is not a catalog.
    """
    if write and file is None:
        _fail("name the file to write with --file")
    try:
        text = _text(file)
        draft = Draft(text)
        answers = _answers(draft.document)
        lists = {name: one for name, one in answers.items() if isinstance(one, ModelList)}
        draft.sync(lists)
        patch = draft.diff(str(file or "gateway.toml"))
    except (CatalogInvalid, UnicodeDecodeError) as error:
        _fail(f"{file or 'the built-in catalog'}: {error}")
    _tell(draft.notes, answers)
    if patch and write and file is not None:
        _write(file, before=text, after=draft.text)
    else:
        typer.echo(patch, nl=False)
    if len(lists) < len(answers):
        raise typer.Exit(TROUBLE)
    raise typer.Exit(DIFFERENT if patch and not write else 0)


def _text(file: Path | None) -> str:
    """With its own line endings, which a patch must match. Raises UnicodeDecodeError."""
    return built_in() if file is None else file.read_bytes().decode()


def _answers(document: Document) -> dict[str, ModelList | NotAnswered]:
    sources = list(_sources(document, Settings()))
    if not sources:
        _fail("no provider of these models is on and has its key in the environment")
    return asyncio.run(ask_all(sources))


def _sources(document: Document, settings: Settings) -> Iterator[Source]:
    """The providers that models name and that are on, as the workers would call them."""
    named = {route.provider for model in document.models.values() for route in model.providers}
    available = Availability(settings.secret)
    for name, provider in document.providers.items():
        key = settings.secret(provider.api_key_env)
        if name in named and key is not None and available.is_on(provider):
            given = settings.secret(provider.base_url_env)
            address = given.get_secret_value() if given else provider.base_url
            yield Source(name, provider, address + provider.base_path, key)


def _tell(notes: list[str], answers: dict[str, ModelList | NotAnswered]) -> None:
    for name, answer in answers.items():
        if isinstance(answer, NotAnswered):
            typer.echo(f"providers.{name}: {answer}", err=True)
        elif answer.unusable:
            typer.echo(f"providers.{name}: {answer.unusable} of its models have no name", err=True)
    for note in notes:
        typer.echo(note, err=True)


def _write(file: Path, *, before: str, after: str) -> None:
    """Not over what somebody has written while the providers were asked."""
    if _text(file) != before:
        _fail(f"{file} has changed meanwhile: nothing is written")
    replace_kept(file, after.encode())
    typer.echo(f"{file} is written")


def _fail(message: str) -> NoReturn:
    typer.echo(f"gateway catalog: {message}", err=True)
    raise typer.Exit(TROUBLE)
