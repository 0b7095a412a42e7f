"""What is measured, side by side: the upstream itself, the bare pass-through, the gateway."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import passthrough
from bench.gateway import MODEL, Gateway, running_gateway
from bench.instruments import Mock
from bench.load import Target

DIRECT = "direct"
YARDSTICK = "pass-through"
GATEWAY = "gateway"
STORES = ("postgres", "clickhouse")
"""Shown, but not in the sum: their work is batched, and they are the operator's own servers."""
GATEWAY_LINGER_SECONDS = 1.75
"""Metering gathers rows for up to a second and reads four times a second: wait for its share."""
START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    target: Target


@contextlib.contextmanager
def direct(mock: Mock) -> Iterator[Subject]:
    """The instruments alone: what every added latency is counted from."""
    yield Subject(DIRECT, Target(port=mock.port, model="gpt-4o-mini", api_key="none", roles=dict))


@contextlib.contextmanager
def pass_through(mock: Mock) -> Iterator[Subject]:
    with socket.create_server(("127.0.0.1", 0), backlog=passthrough.BACKLOG) as listener:
        port = listener.getsockname()[1]
        words = [sys.executable, "-m", "bench.passthrough", "--fd", str(listener.fileno())]
        words += ["--upstream", mock.base_url]
        process = subprocess.Popen(words, pass_fds=(listener.fileno(),))
        roles = {YARDSTICK: [process.pid]}
        target = Target(
            port=port, model="gpt-4o-mini", api_key=passthrough.API_KEY, roles=lambda: roles
        )
        try:
            yield Subject(YARDSTICK, target)
        finally:
            process.terminate()
            process.wait(START_SECONDS)


@contextlib.contextmanager
def gateway(mock: Mock, announce: Callable[[Gateway], None]) -> Iterator[Subject]:
    with running_gateway(mock) as running:
        announce(running)
        ready = running.ready
        target = Target(
            port=running.port,
            model=MODEL,
            api_key=ready.api_key,
            roles=running.roles,
            linger_seconds=GATEWAY_LINGER_SECONDS,
        )
        yield Subject(GATEWAY, target)
