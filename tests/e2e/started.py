"""A running `gateway up` as tests hold it: started, asked, hurt, stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from api.cli.ready import Ready, read_ready

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02
SERVER_URLS = ("VALKEY_URL", "DATABASE_URL", "CLICKHOUSE_URL")


class StartedGateway:
    """Use as a context; `start` and `stop` by hand where a test is about them."""

    def __init__(
        self, data_dir: Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.output = data_dir.with_name(f"{data_dir.name}.out")
        self._options = options
        # The tests kill servers: those a developer keeps elsewhere are not for that.
        inherited = {name: value for name, value in os.environ.items() if name not in SERVER_URLS}
        self.environment = {**inherited, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def ready(self) -> Ready:
        """ready.json as it is now."""
        ready = read_ready(self.data_dir)
        assert ready is not None, self.logs()
        return ready

    def start(self) -> Ready:
        # That of a killed supervisor would pass for the new one's.
        (self.data_dir / "ready.json").unlink(missing_ok=True)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*GATEWAY, "up", "--port=0", f"--data-dir={self.data_dir}", *self._options],
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process = self.process
        until(
            lambda: read_ready(self.data_dir) is not None or process.poll() is not None,
            START_SECONDS,
            self.logs,
        )
        return self.ready

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status. Repeatable."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def kill(self, role: str) -> int:
        """SIGKILL for one process of a role; its id."""
        pid = self.ready.pids[role][0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command on the same data directory."""
        return subprocess.run(
            [*GATEWAY, *arguments, f"--data-dir={self.data_dir}"],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def logs(self) -> str:
        """What everybody said last, for the message of a failed assertion."""
        files = [self.output, *sorted(self.data_dir.glob("logs/*.log"))]
        return "\n".join(
            f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}"
            for file in files
            if file.exists()
        )


GATEWAY = (sys.executable, "-m", "api.cli")


def until(
    holds: Callable[[], bool], seconds: float, explain: Callable[[], str] = lambda: ""
) -> None:
    """Waits for a condition, and fails with an explanation when it does not come true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s\n{explain()}"
        time.sleep(POLL_SECONDS)


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def mentioning(*texts: str) -> list[int]:
    """Processes whose command line or environment holds one of these texts. Linux only."""
    wanted = [text.encode() for text in texts]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
        if int(folder.name) != os.getpid() and any(text in told for text in wanted):
            found.append(int(folder.name))
    return found
