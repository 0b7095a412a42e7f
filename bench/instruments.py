"""The two instruments in C, compiled on first use: the mock upstream and the load generator."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

HERE = Path(__file__).parent
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 60
START_SECONDS = 10
"""The mock listens within milliseconds; a machine under load may need longer."""


class BenchFailed(Exception):
    """The measurement cannot go on; the message says what to do."""


def binary(name: str) -> Path:
    """The compiled instrument, built again when its source is newer. Raises BenchFailed."""
    source, target = HERE / "src" / f"{name}.c", HERE / "bin" / name
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    target.parent.mkdir(exist_ok=True)
    done = subprocess.run(
        [compiler(), "-O2", "-Wall", "-Wextra", "-o", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=COMPILE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise BenchFailed(f"{source} does not compile:\n{done.stderr}")
    return target


def compiler(names: tuple[str, ...] = COMPILERS) -> str:
    """The first C compiler there is. Raises BenchFailed."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise BenchFailed(
        "bench needs a C compiler for its load generator and mock upstream, and found none of "
        f"{', '.join(names)}. On Debian: apt-get install gcc libc6-dev"
    )


@dataclass(frozen=True, slots=True)
class Mock:
    """A running mock upstream."""

    pid: int
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def set(self, *, interval_ms: float, latency_ms: float = 0, chunks: int) -> None:
        """How streams that begin from now on are answered."""
        knobs = f"latency={latency_ms}&interval={interval_ms}&chunks={chunks}"
        httpx.get(f"http://127.0.0.1:{self.port}/_ctl?{knobs}").raise_for_status()

    def requests(self) -> int:
        """How many chat completions it was asked for so far."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/_stats").raise_for_status()
        return int(answer.json()["requests"])


@contextlib.contextmanager
def running_mock() -> Iterator[Mock]:
    with subprocess.Popen([str(binary("mock"))], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Mock(pid=process.pid, port=int(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(START_SECONDS)
