"""`ready.json`: where a running gateway is, for people, tests and the other commands."""

from pathlib import Path

import msgspec

from api.cli.files import replace_private

FILE = "ready.json"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Exists only while the gateway on this data directory is ready; later fields are optional."""

    base_url: str
    api_key: str
    master_key: str
    simulator_url: str | None
    valkey_url: str
    database_url: str
    clickhouse_url: str
    pids: dict[str, list[int]]
    """Role to process ids; `up` is the supervisor itself."""


def write_ready(data_dir: Path, ready: Ready) -> None:
    content = msgspec.json.format(msgspec.json.encode(ready), indent=2)
    replace_private(data_dir / FILE, content + b"\n")


def read_ready(data_dir: Path) -> Ready | None:
    """None where no gateway is ready on that directory."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=Ready)
    except FileNotFoundError:
        return None


def remove_ready(data_dir: Path) -> None:
    (data_dir / FILE).unlink(missing_ok=True)
