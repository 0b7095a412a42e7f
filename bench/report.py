"""The results as tables in Markdown."""

import math
from collections.abc import Sequence

from bench.cells import BURST, GAP_P99_MS, MANY, ONE, PACED, TTFT_P99_MS
from bench.load import Outcome
from bench.results import (
    FIGURES,
    Bar,
    Results,
    Spread,
    bars,
    chunk_us,
    counted_cpu_s,
    cpu_by_role,
    foreign_cores,
    request_us,
    roles,
    spread,
)
from bench.subject import DIRECT, GATEWAY, STORES, YARDSTICK

SUBJECTS = (DIRECT, YARDSTICK, GATEWAY)


def markdown(results: Results) -> str:
    parts = [_heading(results), _figures(results), _by_role(results), _memory(results)]
    if results.held:
        parts.append(_held(results))
    parts += [_faults(results), _bars(bars(results))]
    return "\n\n".join(part for part in parts if part) + "\n"


def number(value: float) -> str:
    """Three digits that matter; a dash for what was not measured."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _heading(results: Results) -> str:
    foreign = foreign_cores(results)
    return (
        f"# Bench, {results.when}\n\n"
        f"{results.machine}. Medians of {len(results.rounds)} interleaved rounds of "
        f"{results.seconds:g} s [least … most]. One api and one worker process; Valkey runs with "
        f"{results.durability}. Foreign load: {number(foreign.median)} cores "
        f"[{number(foreign.least)} … {number(foreign.most)}].\n\n"
        "CPU is user and system time of all gateway processes and Valkey; Postgres and ClickHouse "
        "stand apart below. CPU and ratios hold on a shared machine; requests/s and p99 move with "
        "the neighbours. *Added* is over calling the upstream directly."
    )


def _figures(results: Results) -> str:
    rows = [
        [figure.label, *(_spread(spread(results, subject, figure)) for subject in SUBJECTS)]
        for figure in FIGURES
    ]
    return _table("Figures", ["", *SUBJECTS], rows)


def _by_role(results: Results) -> str:
    names = roles(results)
    counted = [role for role in names if role not in STORES]
    stores = [role for role in names if role in STORES]
    rows = []
    for label, cell, per in (
        ("µs/request, 1 connection", ONE.name, request_us),
        ("µs/request, 64 connections", MANY.name, request_us),
        ("µs/chunk, bursts", BURST.name, chunk_us),
        ("µs/chunk, paced 20 ms", PACED.name, chunk_us),
    ):
        cpu = cpu_by_role(results, cell, per)
        total = sum(cpu[role] for role in counted)
        shares = [f"{number(cpu[role])} ({_percent(cpu[role], total)})" for role in counted]
        rows.append([label, *shares, number(total), *(number(cpu[role]) for role in stores)])
    headings = ["", *counted, "sum", *(f"{role} (not in the sum)" for role in stores)]
    return _table("CPU of the gateway by role, and each role's share", headings, rows)


def _memory(results: Results) -> str:
    last = results.rounds[-1][GATEWAY].idle
    if last is None:
        return ""
    names = roles(results)
    pss = [number(last.pss_mib.get(role, math.nan)) for role in names]
    idle = [number(last.cpu_ms_per_second.get(role, math.nan)) for role in names]
    rows = [["PSS MiB, after the last round", *pss], ["idle CPU ms/s", *idle]]
    return _table("Memory and idling of the gateway by role", ["", *names], rows)


def _held(results: Results) -> str:
    rows = [
        [
            subject,
            number(held.streams),
            *_stream_cells(held.at),
            "-" if held.failed_at is None else number(held.failed_at),
            *_stream_cells(held.first_failure),
            "" if held.first_failure is None else held.first_failure.figures.first_error,
        ]
        for subject, held in results.held.items()
    ]
    cells = ["TTFT p99 ms", "gap p99 ms", "CPU µs/chunk", "foreign cores"]
    title = (
        f"Live streams of 50 tokens/s (gap p99 ≤ {GAP_P99_MS:g} ms, TTFT p99 ≤ {TTFT_P99_MS:g} ms, "
        "no error; load generator and upstream on the same cores)"
    )
    return _table(title, ["", "held", *cells, "failed at", *cells, ""], rows)


def _stream_cells(outcome: Outcome | None) -> tuple[str, str, str, str]:
    if outcome is None:
        return "-", "-", "-", "-"
    return (
        number(outcome.figures.ttft_p99 / 1000),
        number(outcome.figures.gap_p99 / 1000),
        number(chunk_us(outcome, counted_cpu_s(outcome))),
        number(outcome.foreign_cores),
    )


def _faults(results: Results) -> str:
    rows = [
        [subject, cell, str(outcome.figures.faults), outcome.figures.first_error]
        for one in results.rounds
        for subject, own in one.items()
        for cell, outcome in own.cells.items()
        if outcome.figures.faults
    ]
    return _table("Faults seen", ["", "cell", "count", "first"], rows) if rows else ""


def _bars(found: Sequence[Bar]) -> str:
    rows = [
        [
            bar.label,
            _spread(bar.found),
            f"{'≥' if bar.at_least else '≤'} {bar.bound:g}",
            "pass" if bar.passed else "**FAIL**",
        ]
        for bar in found
    ]
    return _table("Bars", ["", "measured", "bar", ""], rows)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (headings, *rows)]
    lines.insert(1, "|" + "---|" * len(headings))
    return f"## {title}\n\n" + "\n".join(lines)


def _spread(found: Spread) -> str:
    if math.isnan(found.median) or found.least == found.most:
        return number(found.median)
    return f"{number(found.median)} [{number(found.least)} … {number(found.most)}]"


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
