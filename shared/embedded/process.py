"""One server process: spawned with a log of its own, asked to stop, killed if it does not.

The process inherits an exclusive lock on a file beside its data. The kernel holds that lock as
long as the process or any child of it lives, so a later start on the same data knows for certain
whether somebody still writes there, even after the process that started it was killed: no window
between fork and a pid file, no pid taken for another's. The record beside the lock then says whom
to stop. (`PR_SET_PDEATHSIG` would be the other way: it exists on Linux alone, fires when the
*thread* that forked ends, and knows nothing of children's children.)
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.embedded.record import ProcessRecord
from shared.embedded.root import Account

STOP_LIMIT_SECONDS = 10.0  # Postgres' fast shutdown writes a checkpoint: 0.1 s, more on a slow disk
POLL_SECONDS = 0.005
LOG_TAIL_BYTES = 4096
LOG_LIMIT_BYTES = 16 << 20  # a log above this is set aside at the next start


class EmbeddedServerError(RuntimeError):
    """A server did not start, did not answer in time, or its data are in use."""


@dataclass(frozen=True, slots=True)
class Launch:
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """All of it: servers see none of our secrets."""
    folder: Path
    """Where the log, the lock and the record are kept."""
    stop_signal: signal.Signals
    account: Account | None
    """Whom to run as; None for ourselves."""

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.json"


class ServerProcess:
    """Use `spawn`. Not for several threads at once."""

    def __init__(self, launch: Launch, child: subprocess.Popen[bytes], log_start: int) -> None:
        self._launch = launch
        self._child = child
        self._log_start = log_start

    @classmethod
    def spawn(cls, launch: Launch) -> "ServerProcess":
        """Ends whoever still serves these data first; an error if that cannot be done."""
        lock = _lock_taken_over(launch.folder, launch.name)
        try:
            _set_aside_a_long_log(launch.log)
            with launch.log.open("ab") as log:
                log_start = log.tell()
                child = _popen(launch, log.fileno(), lock)
        finally:
            os.close(lock)  # the child has its own copy: from now on the lock is its life
        ProcessRecord.of(child.pid).write(launch.record)
        return cls(launch, child, log_start)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    @property
    def obituary(self) -> str:
        """How it died and the last it said: for the message of an error."""
        with self._launch.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - LOG_TAIL_BYTES))
            said = log.read().decode(errors="replace").strip()
        return f"exit status {self._child.returncode}, log {self._launch.log}:\n{said}"

    def ask_to_stop(self) -> None:
        if self.alive:
            self._child.send_signal(self._launch.stop_signal)

    def wait_until_stopped(self, limit: float = STOP_LIMIT_SECONDS) -> None:
        """Kills it at the limit. Safe for the data: all three servers survive a kill."""
        try:
            self._child.wait(limit)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(limit)
        self._launch.record.unlink(missing_ok=True)


def _popen(launch: Launch, log: int, lock: int) -> subprocess.Popen[bytes]:
    account = launch.account
    return subprocess.Popen(  # noqa: S603  # the command is ours, word by word
        launch.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(launch.environment),
        cwd="/",  # the account may not be able to enter ours
        pass_fds=(lock,),
        start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop them in order
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def end_forgotten(folder: Path, name: str) -> None:
    """Stops a server that outlived the process which started it, so that its port is free."""
    os.close(_lock_taken_over(folder, name))


def _lock_taken_over(folder: Path, name: str) -> int:
    """A descriptor that holds the lock. Waits for a dead server's children, stops a live one."""
    lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for sent in (signal.SIGINT, signal.SIGKILL):  # all three take SIGINT for a wish to end
        if try_lock(lock) or _locks_before_the_limit(lock, folder / f"{name}.json", sent):
            return lock
    os.close(lock)
    raise EmbeddedServerError(f"{name}: a process we do not know still uses {folder.parent}")


def _locks_before_the_limit(lock: int, record_path: Path, sent: signal.Signals) -> bool:
    record = ProcessRecord.read(record_path)
    if record is not None and record.is_running:
        os.kill(record.pid, sent)
    deadline = time.monotonic() + STOP_LIMIT_SECONDS
    while not try_lock(lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def try_lock(descriptor: int) -> bool:
    """True also when this descriptor holds the lock already."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_aside_a_long_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.old"))
