"""`gateway keys`: makes and revokes API keys, and makes sealing keys."""

import asyncio
from typing import Annotated

import typer

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.secrets import new_seal_key
from shared.api_key import ApiKey
from shared.caller import DEFAULT_TENANT
from shared.clock import SystemClock
from shared.job import Lane
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.session import PostgresAway, open_postgres
from shared.settings import Settings


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Make and revoke API keys, and make sealing keys.", no_args_is_help=True
    )
    family.command("create")(create)
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
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make an API key and print it. It is shown this once: only a hash of it is kept."""
    options = KeyOptions(
        name=name,
        user_id=user,
        tenant=tenant,
        best_lane=best_lane,
        allowed_models=frozenset(model) if model else None,
    )
    try:
        key = asyncio.run(_create(settings_for(data_dir), options))
    except PostgresAway as error:
        _fail(str(error))
        return
    typer.echo(key.text)


def revoke(
    key: Annotated[str, typer.Argument(help="The key, or its public id of 12 characters.")],
    *,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make an API key useless, everywhere within a second."""
    parsed = ApiKey.parse(key)
    public_id = parsed.public_id if parsed is not None else key
    try:
        known = asyncio.run(_revoke(settings_for(data_dir), public_id))
    except PostgresAway as error:
        _fail(str(error))
        return
    if not known:
        _fail(f"there is no key with the public id {public_id}")
    typer.echo(f"{public_id} is revoked")


def seal() -> None:
    """Print a fresh sealing key for GATEWAY_SEAL_KEYS: 32 random bytes in base64."""
    typer.echo(new_seal_key())


async def _create(settings: Settings, options: KeyOptions) -> ApiKey:
    async with open_postgres(settings.database_url.get_secret_value(), "cli") as engine:
        key, _ = await KeyStore(engine, SystemClock()).create(options)
        return key


async def _revoke(settings: Settings, public_id: str) -> bool:
    async with open_postgres(settings.database_url.get_secret_value(), "cli") as engine:
        return await KeyStore(engine, SystemClock()).revoke(public_id)


def _fail(message: str) -> None:
    typer.echo(f"gateway keys: {message}", err=True)
    raise typer.Exit(1)
