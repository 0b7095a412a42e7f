"""The lock on a data directory: one supervisor at a time."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

FILE = "lock"


class AlreadyRunning(Exception):
    """Another supervisor holds this data directory; the message says which."""


class DataDirLock:
    """Held while open. The kernel frees it when its holder dies, however it dies.

    The descriptor is not inheritable, so a child that outlives the supervisor does not keep it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Raises AlreadyRunning."""
        descriptor = os.open(self._data_dir / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode().strip()
            os.close(descriptor)
            raise AlreadyRunning(
                f"`gateway up` already runs on {self._data_dir} (process {holder or 'unknown'})"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
