"""One run of the load generator against one subject, with the CPU it cost and whom."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from bench.instruments import BenchFailed, Mock, binary
from bench.process import Roles, busy_seconds, cpu_by_role

IDLE_LIMIT_SECONDS = 20
"""Without any byte for this long, the load generator gives up and reports `timed_out`."""
RUN_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom the load generator asks, and whose CPU is counted."""

    port: int
    model: str
    api_key: str
    roles: Callable[[], Roles]
    linger_seconds: float = 0.05
    """How long after the last answer its work for these requests may go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    connections: int
    requests: int
    stream: bool = False
    chunks: int = 64
    per_second: float | None = None
    """Open loop at this rate; None: closed loop, each connection asks again at once."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator prints. Times in µs unless the name says otherwise."""

    ok: int
    http_errors: int
    bad: int
    timed_out: bool
    wall_s: float
    rps: float
    p50: float
    p99: float
    chunks: int
    ttft_p50: float
    ttft_p99: float
    gap_p50: float
    gap_p99: float
    client_cpu_s: float
    peak_active: int
    first_error: str

    @property
    def faults(self) -> int:
        return self.http_errors + self.bad + int(self.timed_out)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    figures: Figures
    cpu_s: dict[str, float]
    """By role, from before the first request until the linger after the last."""
    foreign_cores: float
    """Cores that were busy with neither the subject nor the instruments: the run's noise."""
    upstream_requests: int
    """More than `figures.ok` means that something was sent twice."""


def run(load: Load, target: Target, mock: Mock) -> Outcome:
    """Raises BenchFailed when the subject lost a process, for then the CPU sum is wrong."""
    roles, requests = target.roles(), mock.requests()
    instruments = {"mock": [mock.pid]}
    before, mock_before = cpu_by_role(roles), cpu_by_role(instruments)
    busy, began = busy_seconds(), time.monotonic()
    figures = _generate(load, target)
    time.sleep(target.linger_seconds)
    after, mock_after = cpu_by_role(roles), cpu_by_role(instruments)
    wall, busy = time.monotonic() - began, busy_seconds() - busy
    if target.roles() != roles:
        raise BenchFailed("a process of the subject was replaced during the run; see its logs")
    cpu_s = {role: after[role] - before[role] for role in roles}
    known = sum(cpu_s.values()) + mock_after["mock"] - mock_before["mock"] + figures.client_cpu_s
    return Outcome(
        figures=figures,
        cpu_s=cpu_s,
        foreign_cores=max(0.0, (busy - known) / wall),
        upstream_requests=mock.requests() - requests,
    )


def arguments(load: Load, target: Target) -> list[str]:
    """Of the load generator."""
    words = ["--port", str(target.port), "--model", target.model]
    words += ["-c", str(load.connections), "-n", str(load.requests)]
    words += ["--timeout", str(IDLE_LIMIT_SECONDS)]
    words += ["--header", f"Authorization: Bearer {target.api_key}"]
    if load.stream:
        words += ["--stream", "--chunks", str(load.chunks)]
    if load.per_second is not None:
        words += ["--rate", str(load.per_second)]
    return words


def parse(text: str) -> Figures:
    """Raises BenchFailed."""
    try:
        return msgspec.json.decode(text, type=Figures)
    except msgspec.DecodeError as error:
        raise BenchFailed(f"the load generator printed no figures ({error}): {text!r}") from error


def _generate(load: Load, target: Target) -> Figures:
    done = subprocess.run(
        [str(binary("loadgen")), *arguments(load, target)],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise BenchFailed(f"the load generator failed: {done.stderr}")
    return parse(done.stdout)
