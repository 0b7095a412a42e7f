"""A real gateway for the length of a measurement: `gateway up` on a fresh data directory."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import redis

from bench.instruments import BenchFailed, Mock
from bench.process import Roles

MODEL = "bench_chat"
START_SECONDS = 180
"""Servers from wheels, migrations and a slow disk; far beyond what it takes."""
STOP_SECONDS = 90
POLL_SECONDS = 0.1
TAIL_BYTES = 4000

CATALOG = """\
[providers.bench]
type = "openai"
base_url = "{upstream}"
api_key_env = "BENCH_UPSTREAM_KEY"

[models.{model}]
price = {{ input = 0.5, output = 1.5, cached_input = 0.25 }}
providers = [{{ provider = "bench", upstream_model = "gpt-4o-mini" }}]
"""


class Ready(msgspec.Struct):
    """What is needed of ready.json."""

    base_url: str
    api_key: str
    valkey_url: str
    database_url: str
    simulator_url: str | None
    pids: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running one."""

    supervisor: int
    data_dir: Path

    @property
    def ready(self) -> Ready:
        """As it is now: a restarted process has a new number. Raises BenchFailed."""
        try:
            return msgspec.json.decode((self.data_dir / "ready.json").read_bytes(), type=Ready)
        except FileNotFoundError as error:
            raise BenchFailed("the gateway has ended during the measurement") from error

    def roles(self) -> Roles:
        return {**self.ready.pids, "up": [self.supervisor]}

    @property
    def port(self) -> int:
        port = urlsplit(self.ready.base_url).port
        assert port is not None
        return port

    def durability(self) -> str:
        """What Valkey itself says about its log."""
        with redis.Redis.from_url(self.ready.valkey_url, decode_responses=True) as client:
            asked = client.config_get("appendonly", "appendfsync")
        return ", ".join(f"{name} {value}" for name, value in sorted(asked.items()))


@contextlib.contextmanager
def running_gateway(
    mock: Mock | None, *, apis: int = 1, workers: int = 1, catalog: str = CATALOG
) -> Iterator[Gateway]:
    """Without a mock there is the simulator, which the catalog names by its own variables.

    Raises BenchFailed, with the end of the log, when it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # Postgres runs as another account when we are root
        config = folder / "bench.toml"
        upstream = mock.base_url if mock is not None else ""
        config.write_text(catalog.format(upstream=upstream, model=MODEL))
        log = folder / "up.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *_command(folder / "data", config, apis=apis, workers=workers),
                    *(["--no-simulator"] if mock is not None else []),
                ],
                env={**os.environ, "BENCH_UPSTREAM_KEY": "sk-upstream"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        gateway = Gateway(process.pid, folder / "data")
        try:
            _wait_until_ready(process, gateway, log)
            yield gateway
        finally:
            _stop(process)


def _command(data_dir: Path, catalog: Path, *, apis: int, workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "api.cli", "up", "--port", "0"),
        *("--data-dir", str(data_dir), "--config", str(catalog)),
        *("--api", str(apis), "--workers", str(workers)),
    ]


def _wait_until_ready(process: subprocess.Popen[bytes], gateway: Gateway, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (gateway.data_dir / "ready.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
            raise BenchFailed(f"the gateway did not come up:\n{end}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # asked twice, it does not wait for its processes to drain
        process.wait(STOP_SECONDS)
