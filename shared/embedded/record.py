"""Says on disk which process serves a data directory, so that a later start can stop it.

A pid alone may have been given to another process since; together with the moment of birth, as the
kernel tells it, it names one process.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

_PROC = Path("/proc/self/stat")  # Linux; elsewhere `ps` tells the same
PS_LIMIT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    pid: int
    born: str | None

    @classmethod
    def of(cls, pid: int) -> "ProcessRecord":
        return cls(pid, _born(pid))

    @classmethod
    def read(cls, path: Path) -> "ProcessRecord | None":
        """None for a file that is missing, or was cut short when its writer was killed."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self))

    @property
    def is_running(self) -> bool:
        return self.born is not None and _born(self.pid) == self.born


def command_name(pid: int) -> str | None:
    """The name of the program a process runs; None if there is no such process."""
    if _PROC.exists():
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
    path = _ps(pid, "comm=")
    return Path(path).name if path else None


def _born(pid: int) -> str | None:
    """None if the process is gone; a zombie is gone, it holds nothing any more."""
    return _born_by_proc(pid) if _PROC.exists() else _ps(pid, "lstart=")


def _born_by_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name in brackets may hold blanks; after it come the state (3) … starttime (22).
    fields = stat.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _ps(pid: int, column: str) -> str | None:
    told = subprocess.run(  # noqa: S603  # a fixed program and a number
        ["/bin/ps", "-o", column, "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=PS_LIMIT_SECONDS,
        check=False,
    )
    return told.stdout.strip() or None
