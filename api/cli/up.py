"""`gateway up`: a whole gateway on this machine, from nothing to the first answer."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from api.cli import secrets
from api.cli.environment import inherited
from api.cli.formation import Options
from api.cli.lock import AlreadyRunning, DataDirLock
from api.cli.options import DEFAULT_DATA_DIR
from api.cli.ready import read_ready
from api.cli.supervisor import StartFailed, Supervisor
from shared import log
from shared.clock import SystemClock
from shared.embedded.process import EmbeddedServerError
from shared.postgres.session import PostgresAway
from shared.settings import Settings

EXPECTED = (StartFailed, EmbeddedServerError, PostgresAway)
"""What may go wrong on a sound installation: said in a line, without a traceback."""


def add_to(app: typer.Typer) -> None:
    app.command("up")(up)


def up(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free one.")
    ] = 8000,
    data_dir: Annotated[
        Path,
        typer.Option(help="Where the servers, secrets and logs of this gateway are kept."),
    ] = DEFAULT_DATA_DIR,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The catalog (gateway.toml) for the very first start; the built-in one otherwise. "
            "Later changes go through `gateway config apply`.",
        ),
    ] = None,
    api: Annotated[int, typer.Option(min=1, help="How many API processes to run.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="How many worker processes to run.")] = 1,
    simulator: Annotated[
        bool, typer.Option(help="Run the simulated providers, for a first try and for tests.")
    ] = True,
) -> None:
    """Start a whole gateway on this machine, and keep it running.

    Valkey, Postgres and the ClickHouse engine are started from installed packages, unless
    VALKEY_URL, DATABASE_URL or CLICKHOUSE_URL name servers of yours. What dies is started again.
    When all is ready, ready.json in the data directory says where everything is.

    SIGTERM or Ctrl-C drains every process and leaves none behind; a second one does not wait.
    SIGHUP replaces the api and worker processes one after another without losing a request.
    """
    options = Options(
        host=host,
        port=port,
        data_dir=data_dir.absolute(),
        config=config.absolute() if config is not None else None,
        apis=api,
        workers=workers,
        simulator=simulator,
    )
    settings = Settings()
    log.set_up("up", settings.log_level)
    options.data_dir.mkdir(parents=True, exist_ok=True)
    (options.data_dir / "logs").mkdir(exist_ok=True)
    try:
        with DataDirLock(options.data_dir):
            asyncio.run(_supervise(options, settings.drain_seconds))
    except AlreadyRunning as error:
        ready = read_ready(options.data_dir)
        where = f", at {ready.base_url}" if ready is not None else ""
        _fail(f"{error}{where}")
    except ExceptionGroup as group:
        expected, unexpected = group.split(EXPECTED)
        if unexpected is not None or expected is None:
            raise
        _fail("\n".join(str(error) for error in _leaves(expected)))


async def _supervise(options: Options, drain_seconds: float) -> None:
    environment = inherited()
    supervisor = Supervisor(
        options,
        inherited=environment,
        secrets=secrets.overridden(secrets.load_or_make(options.data_dir), environment),
        drain_seconds=drain_seconds,
        clock=SystemClock(),
        say=typer.echo,
    )
    await supervisor.run()


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(message: str) -> None:
    typer.echo(f"gateway up: {message}", err=True)
    raise typer.Exit(1)
