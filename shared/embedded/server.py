"""What the three servers have in common: how to start, how to tell that one answers, how to stop."""

import importlib.util
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from shared.embedded.process import EmbeddedServerError
from shared.embedded.root import Account

ServerName = Literal["valkey", "postgres", "clickhouse"]

ASK_LIMIT_SECONDS = 1.0  # one question to a server on this machine; it is asked again

# A fixed, small environment: the same messages and dates everywhere, and none of our secrets.
# macOS has no C.UTF-8; there plain C keeps Postgres from asking the system, which starts threads.
SERVER_ENVIRONMENT = {
    "LC_ALL": "C" if sys.platform == "darwin" else "C.UTF-8",
    "TZ": "UTC",
    "PATH": "/usr/bin:/bin",
}


class Server(Protocol):
    """One server on one data directory and port. Calls come in the order written here."""

    @property
    def name(self) -> ServerName: ...
    @property
    def url(self) -> str:
        """Where clients reach the gateway's database on it."""
        ...

    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def stop_signal(self) -> signal.Signals: ...
    @property
    def account(self) -> Account | None: ...

    def prepare(self) -> None:
        """Makes the data directory ready. May take a second the first time; repeatable."""
        ...

    def command(self) -> tuple[str, ...]: ...

    def answers(self) -> bool:
        """Asks once, for at most `ASK_LIMIT_SECONDS`. False means not yet."""
        ...

    def finish(self) -> None:
        """What is to be done once it answers. Repeatable."""
        ...


def package_folder(name: str, *, wheel: str) -> Path:
    """Where a package lies, without importing it: importing ours has side effects."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(f"{wheel} is not installed: pip install 'ollm-gateway[embedded]'")
    return Path(spec.submodule_search_locations[0])
