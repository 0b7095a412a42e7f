"""Starts an API process: `python -m api`."""

import sys
from typing import Annotated

import structlog
import typer

from api.app import create_app
from api.drain import Drain
from api.server import Server, inherit, listen, server_config
from shared import log
from shared.settings import Settings

FAILED = 1


def main(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes any free one.")] = 8000,
    fd: Annotated[
        int | None, typer.Option(help="A listening socket to share, instead of host and port.")
    ] = None,
    drain: Annotated[
        float | None,
        typer.Option(help="Seconds running requests have after SIGTERM.", show_default="a setting"),
    ] = None,
    access_log: Annotated[
        float, typer.Option(min=0, max=1, help="The share of requests that get a log line.")
    ] = 0.0,
) -> None:
    """Serve the HTTP API: authenticate, admit to the queue, relay the replies."""
    settings = Settings()
    log.set_up("api", settings.log_level)
    flag = Drain()
    app = create_app(settings, drain=flag, access_log=access_log)
    seconds = settings.drain_seconds if drain is None else drain
    server = Server(server_config(app, drain_seconds=seconds), flag)
    listener = listen(host, port) if fd is None else inherit(fd)
    structlog.get_logger().info(
        "The API listens", action="api_listens", address=str(listener.getsockname())
    )
    server.run(sockets=[listener])
    if flag.failed:
        sys.exit(FAILED)


if __name__ == "__main__":
    typer.run(main)
