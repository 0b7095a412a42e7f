"""Processes that outlived their supervisor: recorded while it lives, found and ended by the next."""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from api.cli.files import replace_private
from shared.embedded.record import ProcessRecord

FILE = "pids.json"
STOP_SIGNALS = {"postgres": signal.SIGINT}
"""Postgres's fast shutdown; SIGTERM would wait for its clients to leave."""
DRAIN_SECONDS = 10.0
"""Nobody waits for orphans' replies any more, and leases cover what they were running."""
POLL_SECONDS = 0.02


class Orphan(msgspec.Struct, frozen=True):
    role: str
    process: ProcessRecord


class PidRecord:
    """The file that names every process of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE

    def write(self, pids: Mapping[str, Iterable[int]]) -> None:
        """Replaces the record, in the order in which the processes should be ended."""
        recorded = [
            Orphan(role, ProcessRecord.of(pid)) for role, members in pids.items() for pid in members
        ]
        replace_private(self._path, msgspec.json.encode(recorded))

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def orphans(self) -> list[Orphan]:
        """Those of the record that still run."""
        try:
            recorded = msgspec.json.decode(self._path.read_bytes(), type=list[Orphan])
        except FileNotFoundError:
            return []
        return [one for one in recorded if one.process.is_running]


def end_orphans(orphans: Iterable[Orphan]) -> None:
    """Ends each in turn, and whatever it started. Blocks; returns when all are gone."""
    for orphan in orphans:
        process = orphan.process
        with suppress(ProcessLookupError):
            os.kill(process.pid, STOP_SIGNALS.get(orphan.role, signal.SIGTERM))
        _wait(process)
        if process.is_running:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            _wait(process)
        kill_group(process.pid)


def kill_group(leader: int) -> None:
    """Kills what is left of a process's own group; ours are all leaders of one."""
    # macOS answers EPERM for a group of which only a zombie is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _wait(process: ProcessRecord) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    while process.is_running and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
