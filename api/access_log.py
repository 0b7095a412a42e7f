"""A sample of the requests answered, as log lines written in batches; off unless asked for.

A log line costs as much as authenticating does, so lines are kept as tuples and formatted later,
for one request in so many. When they come faster than they are written, the oldest are dropped:
this log is for looking around; nothing is billed by it.
"""

import asyncio
from collections import deque
from typing import NamedTuple

import structlog

FLUSH_SECONDS = 1.0
MAX_WAITING = 10_000

log = structlog.get_logger()


class Line(NamedTuple):
    request_id: str
    method: str
    route: str
    """The template, not the path: a path may hold ids."""
    status: int
    seconds: float


class AccessLog:
    """Keep `run()` running."""

    def __init__(self, sample: float) -> None:
        """`sample` is the share of requests that get a line: 0 is none, 1 is all."""
        self._step = min(1.0, max(0.0, sample))
        self._sum = 0.0
        self._waiting: deque[Line] = deque(maxlen=MAX_WAITING)

    def record(self, line: Line) -> None:
        self._sum += self._step
        if self._sum >= 1.0:
            self._sum -= 1.0
            self._waiting.append(line)

    async def run(self) -> None:
        """Writes what has gathered, until cancelled, and then the rest."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            log.info(
                "A request was answered",
                action="request",
                request_id=line.request_id,
                method=line.method,
                route=line.route,
                status=line.status,
                ms=round(line.seconds * 1000, 2),
            )
