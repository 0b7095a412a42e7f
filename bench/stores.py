"""The stores a bench of single pieces needs, from their wheels, for as long as it runs."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.embedded.server import ServerName
from shared.embedded.servers import EmbeddedServers, GivenUrls

NOT_STARTED = "not-started"


@contextmanager
def running_stores(*names: ServerName) -> Iterator[EmbeddedServers]:
    """Only those named, with the durability they have in service."""
    every: tuple[ServerName, ...] = ("valkey", "postgres", "clickhouse")
    given = GivenUrls(**{name: NOT_STARTED for name in every if name not in names})
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        Path(folder).chmod(0o711)  # under root, Postgres runs as an account that must pass through
        servers = EmbeddedServers(Path(folder), given=given)
        servers.start()
        try:
            yield servers
        finally:
            servers.stop()
