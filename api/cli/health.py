"""`gateway health`: whether a process of a role does its work on this host, for health checks."""

import asyncio
import socket
from enum import StrEnum
from typing import Annotated

import httpx
import typer

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from shared.settings import Settings
from shared.valkey.inspect import StoreAway, live_processes, open_store

ANSWER_SECONDS = 5.0
LIVENESS = "/health/liveness"


class Role(StrEnum):
    """The processes of a Procfile."""

    api = "api"
    worker = "worker"
    metering = "metering"
    background = "background"


def add_to(app: typer.Typer) -> None:
    app.command("health")(health)


def health(
    role: Annotated[Role, typer.Argument(help="The role of the process to check.")],
    *,
    url: Annotated[str, typer.Option(help="Where the api process of this host listens.")] = (
        "http://127.0.0.1:8000"
    ),
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Exit with 0 if a process of this role is alive on this host, with 1 otherwise.

    The api process is asked over HTTP. The others renew an entry in Valkey every second while
    their loops run; one that hangs, or has lost Valkey, is silent and counts as not healthy.
    """
    try:
        healthy = (
            _api_answers(url)
            if role is Role.api
            else asyncio.run(_is_registered(role, settings_for(data_dir)))
        )
    except (StoreAway, httpx.HTTPError) as error:
        typer.echo(f"gateway health: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{role.value}: {'healthy' if healthy else 'not healthy'}", err=not healthy)
    raise typer.Exit(0 if healthy else 1)


def _api_answers(url: str) -> bool:
    return httpx.get(f"{url.rstrip('/')}{LIVENESS}", timeout=ANSWER_SECONDS).is_success


async def _is_registered(role: Role, settings: Settings) -> bool:
    """Host names tell containers apart, so this is about the process beside us."""
    async with open_store(settings.valkey_url.get_secret_value()) as store:
        entries = (await live_processes(store)).values()
    host = socket.gethostname()
    return any(entry.role == role.value and entry.host == host for entry in entries)
