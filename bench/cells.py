"""The loads every subject is put under, and the ramp of live streams."""

import time
from dataclasses import dataclass

import msgspec

from bench.instruments import BenchFailed, Mock
from bench.load import Figures, Load, Outcome, Target, run
from bench.process import cpu_by_role, pss_by_role

CHUNKS = 64
CHUNK_INTERVAL_MS = 20.0
STREAM_SECONDS = CHUNKS * CHUNK_INTERVAL_MS / 1000
PACED_STREAMS_PER_SECOND = 8.0
"""Some ten streams live at a time: a low load, where each chunk wakes sleeping processes."""
MAX_REQUESTS = 60_000
PILOT_REQUESTS = 4
"""Per connection: warms up what is lazy and says how many requests fill the seconds."""
SETTLE_SECONDS = 0.2

HELD_STEPS = (25, 50, 100, 200, 300, 400, 600, 800, 1200, 1600)
HELD_TRIES = 3
"""Best of three: one pause of the machine must not decide."""
GAP_P99_MS = 40.0
TTFT_P99_MS = 250.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    name: str
    connections: int
    least: int
    """Requests, however slow the subject is: for a median, and so that what a gateway does anyway
    while it lingers stays a small share of each."""
    stream: bool = False
    interval_ms: float = 0.0
    per_second: float | None = None


ONE = Cell(name="one", connections=1, least=400)
MANY = Cell(name="many", connections=64, least=4000)
BURST = Cell(name="burst", connections=32, least=1000, stream=True)
PACED = Cell(
    name="paced",
    connections=400,
    least=40,
    stream=True,
    interval_ms=CHUNK_INTERVAL_MS,
    per_second=PACED_STREAMS_PER_SECOND,
)
CELLS = (ONE, MANY, BURST, PACED)


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """A subject that is left alone."""

    cpu_ms_per_second: dict[str, float]
    pss_mib: dict[str, float]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """How far a subject came with live streams."""

    streams: int
    at: Outcome | None
    first_failure: Outcome | None
    failed_at: int | None


def measure(cell: Cell, target: Target, mock: Mock, *, seconds: float) -> Outcome:
    mock.set(interval_ms=cell.interval_ms, chunks=CHUNKS)
    requests = _requests(cell, target, mock, seconds)
    time.sleep(SETTLE_SECONDS)
    return run(_load(cell, requests), target, mock)


def rest(target: Target, *, seconds: float) -> Idle:
    roles = target.roles()
    before, began = cpu_by_role(roles), time.monotonic()
    time.sleep(seconds)
    after, passed = cpu_by_role(roles), time.monotonic() - began
    return Idle(
        cpu_ms_per_second={role: (after[role] - before[role]) / passed * 1000 for role in roles},
        pss_mib=pss_by_role(roles),
    )


def hold(target: Target, mock: Mock, *, steps: tuple[int, ...] = HELD_STEPS) -> Held:
    """Raises the number of live streams of 50 tokens/s each until the subject fails a step."""
    mock.set(interval_ms=CHUNK_INTERVAL_MS, chunks=CHUNKS)
    held = Held(streams=0, at=None, first_failure=None, failed_at=None)
    for streams in steps:
        outcome = _try_hold(streams, target, mock)
        if not holds(outcome.figures):
            return msgspec.structs.replace(held, first_failure=outcome, failed_at=streams)
        held = msgspec.structs.replace(held, streams=streams, at=outcome)
    return held


def holds(figures: Figures) -> bool:
    """No stream lost or broken, none late to begin, none that stutters."""
    return (
        figures.faults == 0
        and figures.gap_p99 <= GAP_P99_MS * 1000
        and figures.ttft_p99 <= TTFT_P99_MS * 1000
    )


def _try_hold(streams: int, target: Target, mock: Mock) -> Outcome:
    load = Load(
        connections=streams * 3 + 20,  # a subject that is late must not be spared new streams
        requests=max(40, int(streams * 2.5)),
        stream=True,
        chunks=CHUNKS,
        per_second=streams / STREAM_SECONDS,
    )
    outcome = run(load, target, mock)
    for _ in range(HELD_TRIES - 1):
        if holds(outcome.figures):
            break
        outcome = run(load, target, mock)
    return outcome


def _requests(cell: Cell, target: Target, mock: Mock, seconds: float) -> int:
    if cell.per_second is not None:
        return max(cell.least, int(cell.per_second * seconds))
    pilot = run(_load(cell, max(40, cell.connections * PILOT_REQUESTS)), target, mock).figures
    if pilot.ok == 0:
        raise BenchFailed(f"nothing is answered: {pilot.first_error}")
    return min(MAX_REQUESTS, max(cell.least, int(pilot.rps * seconds)))


def _load(cell: Cell, requests: int) -> Load:
    return Load(
        connections=cell.connections,
        requests=requests,
        stream=cell.stream,
        chunks=CHUNKS,
        per_second=cell.per_second,
    )
