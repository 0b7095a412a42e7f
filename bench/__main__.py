"""`python -m bench`: the gateway, the bare pass-through and the upstream itself, in one run.

Every load is put on the three in turn, round by round; medians and ratios are printed as Markdown,
progress on standard error. The exit code is 1 when a bar is not met, 2 when nothing was measured.
"""

import argparse
import contextlib
import datetime
import os
import platform
import sys
from pathlib import Path

import msgspec

from bench import report, usage
from bench.cells import CELLS, HELD_STEPS, Held, hold, measure, rest
from bench.gateway import Gateway
from bench.instruments import BenchFailed, Mock, running_mock
from bench.load import Outcome
from bench.results import Results, Round, bars, counted_cpu_s
from bench.subject import Subject, direct, gateway, pass_through

RESULTS_FOLDER = Path(__file__).parent / "results"
IDLE_SECONDS = 2.0
QUICK_HELD_STEPS = (50, 200)


def main() -> int:
    if sys.argv[1:2] == ["usage"]:
        return usage.main(sys.argv[2:])
    options = _options()
    try:
        results = _run(options)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    text = report.markdown(results)
    print(text)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    if options.save:
        _save(text, results)
    return 0 if all(bar.passed for bar in bars(results)) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts")
    parser.add_argument(
        "--held",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to ramp up live streams (a minute or two)",
    )
    parser.add_argument("--quick", action="store_true", help="one short round, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every single outcome")
    parser.add_argument("--save", action="store_true", help=f"keep the report in {RESULTS_FOLDER}")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above zero")
    return options


def _run(options: argparse.Namespace) -> Results:
    found: list[Gateway] = []
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(running_mock())
        _say("starting the gateway")
        subjects = [
            stack.enter_context(direct(mock)),
            stack.enter_context(pass_through(mock)),
            stack.enter_context(gateway(mock, found.append)),
        ]
        durability = found[0].durability()
        rounds = [_round(number, subjects, mock, options) for number in range(options.rounds)]
        steps = QUICK_HELD_STEPS if options.quick else HELD_STEPS
        held = _hold_all(subjects, mock, steps) if options.held else {}
    return Results(
        when=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        machine=_machine(),
        durability=durability,
        seconds=options.seconds,
        rounds=rounds,
        held=held,
    )


def _round(
    number: int, subjects: list[Subject], mock: Mock, options: argparse.Namespace
) -> dict[str, Round]:
    """Each load on one subject after another, back and forth: a drift of the machine hits all."""
    outcomes: dict[str, dict[str, Outcome]] = {subject.name: {} for subject in subjects}
    order = subjects if number % 2 == 0 else subjects[::-1]
    for cell in CELLS:
        for subject in order:
            outcome = measure(cell, subject.target, mock, seconds=options.seconds)
            outcomes[subject.name][cell.name] = outcome
            figures = outcome.figures
            _say(
                f"round {number + 1}/{options.rounds} {cell.name:5} {subject.name:12} "
                f"{figures.rps:9,.1f}/s, {counted_cpu_s(outcome) / max(1, figures.ok) * 1e6:8,.1f} "
                f"µs CPU each, {figures.faults} faults, foreign {outcome.foreign_cores:.2f} cores"
            )
    return {
        subject.name: Round(
            cells=outcomes[subject.name], idle=rest(subject.target, seconds=IDLE_SECONDS)
        )
        for subject in subjects
    }


def _hold_all(subjects: list[Subject], mock: Mock, steps: tuple[int, ...]) -> dict[str, Held]:
    held = {}
    for subject in subjects:
        held[subject.name] = hold(subject.target, mock, steps=steps)
        _say(f"live streams held by {subject.name}: {held[subject.name].streams}")
    return held


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, Python {platform.python_version()}"


def _save(text: str, results: Results) -> None:
    RESULTS_FOLDER.mkdir(exist_ok=True)
    path = RESULTS_FOLDER / f"{results.when.replace(' ', '-').replace(':', '')}.md"
    path.write_text(text)
    _say(f"kept in {path}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
