"""Runs the front: `python -m shared.embedded.clickhouse_front --path DIR --port PORT`."""

import argparse
from pathlib import Path

import uvicorn

from shared.embedded.clickhouse_front.app import ClickHouseFront

DRAIN_LIMIT_SECONDS = 5  # statements in flight may end; whoever stops us waits longer than this
OPEN_REQUESTS_LIMIT = 256  # each may hold a whole body in memory; above this the answer is 503
KEEP_ALIVE_SECONDS = 10  # as the real server's default: clients expect to reuse a connection


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clickhouse_front", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="the engine's data directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", default="default", help="created if it is missing")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    # The lifespan opens the engine before the port is bound, so a `/ping` that answers means
    # ready; and closes it before uvicorn hands SIGTERM back to the system.
    uvicorn.run(
        ClickHouseFront(arguments.path, database=arguments.database),
        host=arguments.host,
        port=arguments.port,
        lifespan="on",
        access_log=False,
        log_level="warning",
        limit_concurrency=OPEN_REQUESTS_LIMIT,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_LIMIT_SECONDS,
    )


if __name__ == "__main__":
    main()
