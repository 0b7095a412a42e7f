"""One process of ours: started with its own log and session, watched, ended within a limit."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from api.cli.orphans import kill_group
from shared.clock import Clock

LOG_BYTES = 16 << 20
"""A log beyond this is moved aside when its process starts; one older part is kept."""
LOG_TAIL_LINES = 15
KILL_SECONDS = 5.0
"""The kernel ends a killed process at once, unless it hangs in a system call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start, as which role."""

    role: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    drain_seconds: float
    """How long it may take to end after SIGTERM."""
    pass_fds: tuple[int, ...] = ()


class Child:
    """A running process, the leader of its own session, so that a Ctrl-C in the terminal reaches
    only the supervisor and what the process leaves behind can be killed with it.
    """

    def __init__(self, command: Command, process: asyncio.subprocess.Process, born: float) -> None:
        self._command = command
        self._process = process
        self._asked = False
        self.born = born
        self.pid = process.pid

    @classmethod
    async def start(cls, command: Command, clock: Clock) -> Self:
        born = clock.now()
        _turn_over(command.log)
        with command.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=command.pass_fds,
                start_new_session=True,
            )
        return cls(command, process, born)

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def ended(self) -> int:
        """Waits for the end, however long that takes; the exit status. Nothing of it is left."""
        status = await self._process.wait()
        kill_group(self.pid)
        return status

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for it and its group once the limit has passed.

        Can be called again when it was cancelled: the process is asked once.
        """
        if self.running and not self._asked:
            self._asked = True
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._command.drain_seconds):
                await self.ended()
        except TimeoutError:
            self.kill()
            async with asyncio.timeout(KILL_SECONDS):
                await self.ended()

    def kill(self) -> None:
        if self.running:
            kill_group(self.pid)


def tail(log: Path) -> str:
    """The last lines of a log, to show why a process ended."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])


def _turn_over(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
