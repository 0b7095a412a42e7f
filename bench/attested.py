"""`python -m bench.attested`: what it costs to hash a call's bytes and to keep its transcript.

One gateway, two models of one upstream, the second with receipts; each load on one after the other,
back and forth. CPU of the worker, in µs for a request or a chunk: nothing else has more to do before
the answer's end. The background process, which makes the receipts then, is stopped meanwhile.
"""

import argparse
import contextlib
import os
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence

from bench import gateway
from bench.cells import BURST, MANY, PACED, Cell, measure
from bench.instruments import BenchFailed, Mock, running_mock
from bench.load import Outcome, Target
from bench.subject import GATEWAY_LINGER_SECONDS

PLAIN, ATTESTED = "bench_plain", "bench_attested"
CATALOG = """\
[providers.bench]
type = "near"
base_url = "{upstream}"
api_key_env = "BENCH_UPSTREAM_KEY"

[models.bench_plain]
tier = "TEE"
attestation = "off"
price = {{ input = 0.5, output = 1.5 }}
providers = [{{ provider = "bench", upstream_model = "gpt-4o-mini" }}]

[models.bench_attested]
tier = "TEE"
attestation = "record"
price = {{ input = 0.5, output = 1.5 }}
providers = [{{ provider = "bench", upstream_model = "gpt-4o-mini" }}]
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.attested", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    try:
        with running_mock() as mock:
            _run(mock, options.rounds, options.seconds)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def _run(mock: Mock, rounds: int, seconds: float) -> None:
    with gateway.running_gateway(mock, catalog=CATALOG) as running:
        key = running.ready.api_key
        targets = [
            Target(
                port=running.port,
                model=model,
                api_key=key,
                roles=running.roles,
                linger_seconds=GATEWAY_LINGER_SECONDS,
            )
            for model in (PLAIN, ATTESTED)
        ]
        with _stopped(running.roles()["background"]):
            for cell in (MANY, BURST, PACED):
                _compare(cell, targets, mock, rounds, seconds)


@contextlib.contextmanager
def _stopped(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _compare(
    cell: Cell, targets: Sequence[Target], mock: Mock, rounds: int, seconds: float
) -> None:
    costs: dict[str, list[float]] = {PLAIN: [], ATTESTED: []}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else targets[::-1]:
            outcome = measure(cell, target, mock, seconds=seconds)
            costs[target.model].append(_cost(cell, outcome))
    plain, attested = (statistics.median(costs[model]) for model in (PLAIN, ATTESTED))
    unit = "chunk" if cell.stream else "request"
    print(
        f"{cell.name}: {plain:.2f} µs a {unit} without, {attested:.2f} µs with receipts"
        f" ({attested - plain:+.2f} µs)",
        flush=True,
    )


def _cost(cell: Cell, outcome: Outcome) -> float:
    """Raises BenchFailed where a call failed: it would be cheaper."""
    if outcome.figures.faults:
        raise BenchFailed(f"{outcome.figures.faults} calls failed: {outcome.figures.first_error}")
    count = outcome.figures.chunks if cell.stream else outcome.figures.ok
    return outcome.cpu_s["worker"] / count * 1e6


if __name__ == "__main__":
    sys.exit(main())
