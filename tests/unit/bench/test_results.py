"""Ratios, medians and bars: the arithmetic between what was measured and pass or fail."""

import math

import msgspec
import pytest

from bench import report
from bench.cells import CELLS, Held, Idle, holds
from bench.load import Figures, Outcome
from bench.results import (
    CPU_BURST,
    CPU_MANY,
    Bar,
    Results,
    Round,
    Spread,
    bars,
    counted_cpu_s,
    ratio,
)
from bench.subject import DIRECT, GATEWAY, YARDSTICK


def figures(**changes: object) -> Figures:
    values: dict[str, object] = {
        "ok": 1000,
        "http_errors": 0,
        "bad": 0,
        "timed_out": False,
        "wall_s": 2.0,
        "rps": 500.0,
        "p50": 1000.0,
        "p99": 3000.0,
        "chunks": 10_000,
        "ttft_p50": 500.0,
        "ttft_p99": 900.0,
        "gap_p50": 20_000.0,
        "gap_p99": 21_000.0,
        "client_cpu_s": 0.1,
        "peak_active": 10,
        "first_error": "",
    }
    return Figures(**{**values, **changes})  # type: ignore[arg-type]


def a_round(cpu_s: dict[str, float], **changes: object) -> Round:
    outcome = Outcome(
        figures=figures(**changes), cpu_s=cpu_s, foreign_cores=0.5, upstream_requests=1000
    )
    idle = Idle(cpu_ms_per_second=dict.fromkeys(cpu_s, 1.0), pss_mib=dict.fromkeys(cpu_s, 10.0))
    return Round(cells={cell.name: outcome for cell in CELLS}, idle=idle)


def results(*gateways: Round, held: int = 400) -> Results:
    rounds = [
        {DIRECT: a_round({}, p50=100.0), YARDSTICK: a_round({YARDSTICK: 0.1}), GATEWAY: gateway}
        for gateway in gateways
    ]
    return Results(
        when="2026-01-01 00:00",
        machine="a machine",
        durability="appendfsync always",
        seconds=1.0,
        rounds=rounds,
        held={
            GATEWAY: Held(streams=held, at=None, first_failure=None, failed_at=None),
        },
    )


def test_postgres_and_clickhouse_are_not_in_the_sum() -> None:
    outcome = a_round({"api": 0.1, "valkey": 0.2, "postgres": 4.0, "clickhouse": 8.0})
    assert counted_cpu_s(outcome.cells["many"]) == pytest.approx(0.3)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    found = ratio(
        results(a_round({"api": 0.2}), a_round({"api": 0.9}), a_round({"api": 0.3})), CPU_MANY
    )
    assert found.median == pytest.approx(3.0)
    assert [found.least, found.most] == pytest.approx([2.0, 9.0])


def test_added_latency_is_counted_from_the_upstream_itself() -> None:
    bar = bars(results(a_round({"api": 0.1}, p50=1500.0)))[2]
    assert bar.measured == pytest.approx(1.4)
    assert bar.passed


@pytest.mark.parametrize(
    ("cpu_s", "streams", "failed"),
    [(0.2, 200, []), (0.26, 200, [0]), (0.31, 200, [0, 1]), (0.2, 199, [4])],
)
def test_each_bar_fails_by_itself(cpu_s: float, streams: int, failed: list[int]) -> None:
    found = bars(results(a_round({"api": cpu_s}), held=streams))
    assert [at for at, bar in enumerate(found) if not bar.passed] == failed


def test_a_wrong_answer_fails_the_run() -> None:
    found = bars(results(a_round({"api": 0.1}, bad=1)))
    assert [bar.passed for bar in found] == [True, True, True, False, True]


def test_what_could_not_be_measured_fails_its_bar() -> None:
    nothing = results(a_round({"api": 0.1}, ok=0, chunks=0))
    assert math.isnan(ratio(nothing, CPU_BURST).median)
    assert not Bar(label="", found=Spread.of([]), bound=1, at_least=True).passed
    assert not bars(nothing)[0].passed


def test_a_spread_leaves_out_what_is_unknown() -> None:
    assert Spread.of([3.0, math.nan, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"gap_p99": 40_000.0, "ttft_p99": 250_000.0}, True),
        ({"gap_p99": 40_001.0}, False),
        ({"ttft_p99": 250_001.0}, False),
        ({"http_errors": 1}, False),
        ({"bad": 1}, False),
        ({"timed_out": True}, False),
    ],
)
def test_streams_are_held_only_without_any_fault(
    changes: dict[str, object], expected: bool
) -> None:
    assert holds(figures(**changes)) is expected


def test_the_report_shows_shares_and_verdicts() -> None:
    text = report.markdown(
        results(a_round({"api": 0.3, "worker": 0.1, "postgres": 0.05}), held=100)
    )
    assert "| µs/request, 64 connections | 300 (75%) | 100 (25%) | 400 | 50.0 |" in text
    assert "| live streams of 50 tokens/s | 100 | ≥ 200 | **FAIL** |" in text


def test_results_survive_being_written_down() -> None:
    kept = results(a_round({"api": 0.1}))
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Results) == kept
