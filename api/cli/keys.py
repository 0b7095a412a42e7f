"""`gateway keys`: makes, lists and revokes API keys, and makes sealing keys."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.secrets import new_seal_key
from shared.api_key import ApiKey
from shared.caller import DEFAULT_TENANT
from shared.clock import SystemClock
from shared.errors import NotFound
from shared.job import Lane
from shared.postgres.audit import CLI
from shared.postgres.keys import KeyInfo, KeyOptions, KeyStore
from shared.postgres.session import PostgresAway, open_postgres
from shared.settings import Settings

PAGE = 500
HEAD = ("key", "state", "tenant", "user", "lane", "models", "scopes", "expires", "used", "name")


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Make, list and revoke API keys, and make sealing keys.", no_args_is_help=True
    )
    family.command("create")(create)
    family.command("list")(list_keys)
    family.command("revoke")(revoke)
    family.command("seal")(seal)
    app.add_typer(family, name="keys")


def create(
    *,
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Whom its use is billed to; a user of its own otherwise."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to.")] = DEFAULT_TENANT,
    best_lane: Annotated[
        Lane, typer.Option(help="The best lane of the queue it may ask for.")
    ] = "priority",
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model it may use; give it again for more. Every model otherwise."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Something it may do, such as dryrun or cache; give it again for more."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make an API key and print it. It is shown this once: only a hash of it is kept."""
    options = KeyOptions(
        name=name,
        user_id=user,
        tenant=tenant,
        best_lane=best_lane,
        scopes=frozenset(scope or ()),
        allowed_models=frozenset(model) if model else None,
    )
    try:
        key = asyncio.run(_create(settings_for(data_dir), options))
    except PostgresAway as error:
        _fail(str(error))
        return
    typer.echo(key.text)


def list_keys(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all keys, oldest first: who they are for and what they may do, never their secrets."""
    try:
        found = asyncio.run(_list(settings_for(data_dir)))
    except PostgresAway as error:
        _fail(str(error))
        return
    for line in key_table(found):
        typer.echo(line)


def revoke(
    key: Annotated[str, typer.Argument(help="The key, or its public id of 12 characters.")],
    *,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make an API key useless, everywhere within a second."""
    parsed = ApiKey.parse(key)
    public_id = parsed.public_id if parsed is not None else key
    try:
        asyncio.run(_revoke(settings_for(data_dir), public_id))
    except (PostgresAway, NotFound) as error:
        _fail(str(error))
    typer.echo(f"{public_id} is revoked")


def seal() -> None:
    """Print a fresh sealing key for GATEWAY_SEAL_KEYS: 32 random bytes in base64."""
    typer.echo(new_seal_key())


async def _create(settings: Settings, options: KeyOptions) -> ApiKey:
    async with open_postgres(settings.database_url.get_secret_value(), "cli") as engine:
        key, _ = await KeyStore(engine, SystemClock()).create(options, actor=CLI)
        return key


async def _list(settings: Settings) -> list[KeyInfo]:
    async with open_postgres(settings.database_url.get_secret_value(), "cli") as engine:
        store = KeyStore(engine, SystemClock())
        found: list[KeyInfo] = []
        while page := await store.list_keys(skip=len(found), limit=PAGE):
            found += page
        return found


def key_table(keys: Sequence[KeyInfo]) -> list[str]:
    """One line for each key, under a head; columns as wide as they need to be."""
    rows = [HEAD, *(_row(key) for key in keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(key: KeyInfo) -> tuple[str, ...]:
    return (
        key.public_id,
        "active" if key.is_active else "revoked",
        key.tenant,
        key.user_id,
        key.best_lane,
        ",".join(key.allowed_models) if key.allowed_models is not None else "all",
        ",".join(key.scopes) or "-",
        _day(key.expires_at),
        _day(key.last_used_at),
        key.name or "-",
    )


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d}"


async def _revoke(settings: Settings, public_id: str) -> None:
    async with open_postgres(settings.database_url.get_secret_value(), "cli") as engine:
        await KeyStore(engine, SystemClock()).revoke(public_id, CLI)


def _fail(message: str) -> None:
    typer.echo(f"gateway keys: {message}", err=True)
    raise typer.Exit(1)
