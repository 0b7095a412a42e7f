"""What one run of the bench found, and the figures that are drawn from it."""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from bench.cells import BURST, MANY, ONE, PACED, Held, Idle
from bench.load import Outcome
from bench.subject import DIRECT, GATEWAY, STORES, YARDSTICK


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """All cells of one subject, once."""

    cells: dict[str, Outcome]
    idle: Idle | None = None


class Results(msgspec.Struct, frozen=True, kw_only=True):
    when: str
    machine: str
    durability: str
    seconds: float
    rounds: list[dict[str, Round]]
    """By subject."""
    held: dict[str, Held]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a subject in a round; the second argument is `direct` in the same round."""

    label: str
    of: Callable[[Round, Round], float]


def counted_cpu_s(outcome: Outcome) -> float:
    """All processes of the subject and its Valkey, without Postgres and ClickHouse."""
    return sum(seconds for role, seconds in outcome.cpu_s.items() if role not in STORES)


def request_us(outcome: Outcome, cpu_s: float) -> float:
    return cpu_s / outcome.figures.ok * 1e6 if outcome.figures.ok else math.nan


def chunk_us(outcome: Outcome, cpu_s: float) -> float:
    return cpu_s / outcome.figures.chunks * 1e6 if outcome.figures.chunks else math.nan


def _cpu_per_request(cell: str) -> Callable[[Round, Round], float]:
    return lambda own, _: request_us(own.cells[cell], counted_cpu_s(own.cells[cell]))


def _cpu_per_chunk(cell: str) -> Callable[[Round, Round], float]:
    return lambda own, _: chunk_us(own.cells[cell], counted_cpu_s(own.cells[cell]))


def _ms(cell: str, name: str) -> Callable[[Round, Round], float]:
    return lambda own, _: float(getattr(own.cells[cell].figures, name)) / 1000


def _added_ms(cell: str, name: str) -> Callable[[Round, Round], float]:
    figure = _ms(cell, name)
    return lambda own, direct: figure(own, direct) - figure(direct, direct)


def _memory(own: Round, _: Round) -> float:
    if own.idle is None:
        return math.nan
    return sum(mib for role, mib in own.idle.pss_mib.items() if role not in STORES)


def _idle(own: Round, _: Round) -> float:
    if own.idle is None:
        return math.nan
    return sum(ms for role, ms in own.idle.cpu_ms_per_second.items() if role not in STORES)


CPU_MANY = Figure("CPU µs/request, 64 connections", _cpu_per_request(MANY.name))
CPU_BURST = Figure("CPU µs/chunk, bursts", _cpu_per_chunk(BURST.name))
ADDED_P50_ONE = Figure("added p50 ms, 1 connection", _added_ms(ONE.name, "p50"))

FIGURES = (
    Figure("CPU µs/request, 1 connection", _cpu_per_request(ONE.name)),
    CPU_MANY,
    CPU_BURST,
    Figure("CPU µs/chunk, paced 20 ms", _cpu_per_chunk(PACED.name)),
    ADDED_P50_ONE,
    Figure("added p99 ms, 1 connection", _added_ms(ONE.name, "p99")),
    Figure("p50 ms, 64 connections", _ms(MANY.name, "p50")),
    Figure("p99 ms, 64 connections", _ms(MANY.name, "p99")),
    Figure("requests/s, 1 connection", lambda own, _: own.cells[ONE.name].figures.rps),
    Figure("requests/s, 64 connections", lambda own, _: own.cells[MANY.name].figures.rps),
    Figure("chunks/s, bursts", lambda own, _: _chunks_per_second(own.cells[BURST.name])),
    Figure("added TTFT p50 ms, paced", _added_ms(PACED.name, "ttft_p50")),
    Figure("added TTFT p99 ms, paced", _added_ms(PACED.name, "ttft_p99")),
    Figure("gap p99 ms, paced", _ms(PACED.name, "gap_p99")),
    Figure("memory MiB (PSS)", _memory),
    Figure("idle CPU ms/s", _idle),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan)
        return cls(statistics.median(known), min(known), max(known))


def spread(results: Results, subject: str, figure: Figure) -> Spread:
    return Spread.of([figure.of(one[subject], one[DIRECT]) for one in results.rounds])


def ratio(results: Results, figure: Figure) -> Spread:
    """The gateway to the pass-through, round by round: what disturbs a round hits both."""
    return Spread.of(
        [
            _divided(figure.of(one[GATEWAY], one[DIRECT]), figure.of(one[YARDSTICK], one[DIRECT]))
            for one in results.rounds
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What the gateway promises to stay within."""

    label: str
    found: Spread
    bound: float
    at_least: bool = False

    @property
    def measured(self) -> float:
        return self.found.median

    @property
    def passed(self) -> bool:
        """A figure that could not be measured fails."""
        if math.isnan(self.measured):
            return False
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def bars(results: Results) -> list[Bar]:
    found = [
        Bar(
            label="CPU per request at 64 connections, times the pass-through",
            found=ratio(results, CPU_MANY),
            bound=2.5,
        ),
        Bar(
            label="CPU per chunk in bursts, times the pass-through",
            found=ratio(results, CPU_BURST),
            bound=3.0,
        ),
        Bar(
            label="added p50 at 1 connection, ms",
            found=spread(results, GATEWAY, ADDED_P50_ONE),
            bound=1.5,
        ),
        Bar(
            label="answers that were wrong or missing", found=Spread.of([faults(results)]), bound=0
        ),
    ]
    if (held := results.held.get(GATEWAY)) is not None:
        found.append(
            Bar(
                label="live streams of 50 tokens/s",
                found=Spread.of([held.streams]),
                bound=200,
                at_least=True,
            )
        )
    return found


def faults(results: Results) -> int:
    """Over all cells of the gateway; the ramp counts for itself."""
    return sum(
        outcome.figures.faults for one in results.rounds for outcome in one[GATEWAY].cells.values()
    )


def roles(results: Results) -> list[str]:
    """The gateway's, those that count first."""
    found = {role for one in results.rounds for role in _cpu_roles(one[GATEWAY].cells)}
    return sorted(found, key=lambda role: (role in STORES, role))


def cpu_by_role(
    results: Results, cell: str, per: Callable[[Outcome, float], float]
) -> dict[str, float]:
    """Medians, µs per request or per chunk."""
    outcomes = [one[GATEWAY].cells[cell] for one in results.rounds]
    return {
        role: Spread.of([per(outcome, outcome.cpu_s.get(role, 0.0)) for outcome in outcomes]).median
        for role in roles(results)
    }


def foreign_cores(results: Results) -> Spread:
    return Spread.of(
        [
            outcome.foreign_cores
            for one in results.rounds
            for own in one.values()
            for outcome in own.cells.values()
        ]
    )


def _cpu_roles(cells: Mapping[str, Outcome]) -> set[str]:
    return {role for outcome in cells.values() for role in outcome.cpu_s}


def _chunks_per_second(outcome: Outcome) -> float:
    return outcome.figures.chunks / outcome.figures.wall_s if outcome.figures.wall_s else math.nan


def _divided(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor else math.nan
