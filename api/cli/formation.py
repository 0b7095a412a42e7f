"""Which processes a gateway on one machine consists of, and how each is started."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.cli.child import Command
from api.cli.environment import SIMULATOR_KEY
from api.cli.secrets import Secrets

DRAIN_ORDER = ("api", "worker", "metering", "background", "simulator")
"""Who gives work to others ends first; started in the opposite order."""
SERVERS = ("valkey", "postgres", "clickhouse")
SPARE_SECONDS = 5.0
"""On top of what a process allows itself: it ends by its own limit, not by ours."""
SIMULATOR_DRAIN_SECONDS = 5.0
ROOTS_FILE = "roots.json"
"""In the directory of the simulator's confidential machines: written last, when all is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `gateway up` was asked for."""

    host: str
    port: int
    data_dir: Path
    config: Path | None
    apis: int
    workers: int
    simulator: bool


class Formation:
    """Composes the command of every process from one environment."""

    def __init__(
        self, options: Options, environment: Mapping[str, str], drain_seconds: float
    ) -> None:
        self._options = options
        self._environment = environment
        self._drain_seconds = drain_seconds + SPARE_SECONDS

    def simulator(self, descriptor: int) -> Command:
        ledger = self._options.data_dir / "simulator-ledger.jsonl"
        kept = ("--ledger", str(ledger), "--tee", str(tee_directory(self._options.data_dir)))
        return Command(
            role="simulator",
            argv=_module("workers.simulator", "--fd", str(descriptor), *kept),
            environment=self._environment,
            log=self.log("simulator"),
            drain_seconds=SIMULATOR_DRAIN_SECONDS,
            pass_fds=(descriptor,),
        )

    def mint(self) -> Command | None:
        """Makes the keys of the simulator's confidential machines, once for all its starts."""
        directory = tee_directory(self._options.data_dir)
        if (directory / ROOTS_FILE).exists():
            return None
        return self._command("mint", 0, "workers.simulator", "mint", str(directory))

    def release(self) -> Command:
        config = self._options.config
        chosen = ("--config", str(config)) if config is not None else ()
        return self._command("release", 0, "api.cli", "release", *chosen)

    def gateway(self, descriptor: int) -> list[Command]:
        """All processes of the Procfile, in the order they are started."""
        apis = [
            self._command("api", n, "api", "--fd", str(descriptor), pass_fds=(descriptor,))
            for n in range(self._options.apis)
        ]
        workers = [self._command("worker", n, "workers") for n in range(self._options.workers)]
        return [
            self._command("background", 0, "workers.background"),
            self._command("metering", 0, "workers.metering"),
            *workers,
            *apis,
        ]

    def log(self, name: str) -> Path:
        return self._options.data_dir / "logs" / f"{name}.log"

    def _command(
        self, role: str, number: int, *argv: str, pass_fds: tuple[int, ...] = ()
    ) -> Command:
        return Command(
            role=role,
            argv=_module(*argv),
            environment=self._environment,
            log=self.log(f"{role}-{number + 1}" if role in ("api", "worker") else role),
            drain_seconds=self._drain_seconds,
            pass_fds=pass_fds,
        )


def child_environment(
    inherited: Mapping[str, str],
    *,
    addresses: Mapping[str, str],
    secrets: Secrets,
    simulator_url: str | None,
    data_dir: Path,
) -> dict[str, str]:
    """What every child is given: all of ours, and what the supervisor decided."""
    decided = {
        **addresses,
        "GATEWAY_MASTER_KEY": secrets.master_key,
        "GATEWAY_SEAL_KEYS": secrets.seal_key,
        # The supervisor makes a first key of its own, and prints it.
        "GATEWAY_BOOTSTRAP_API_KEY": "false",
        # A crash must leave its last lines in the log.
        "PYTHONUNBUFFERED": "1",
    }
    if simulator_url is not None:
        decided["GATEWAY_SIMULATOR_URL"] = simulator_url
        decided[SIMULATOR_KEY] = secrets.simulator_key
        # Whoever names roots of trust of his own means them.
        decided["GATEWAY_ATTESTATION_ROOTS"] = inherited.get(
            "GATEWAY_ATTESTATION_ROOTS", str(tee_directory(data_dir) / ROOTS_FILE)
        )
    return {**inherited, **decided}


def tee_directory(data_dir: Path) -> Path:
    return data_dir / "tee"


def _module(*argv: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *argv)
