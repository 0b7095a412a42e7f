"""Tells the time: one object handed to whoever needs it, so that a test can hold it still."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC: for what is stored or crosses a process."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards: for durations inside one process."""
        ...


class SystemClock:
    """The machine's own clocks. Hosts of one gateway keep theirs in step with NTP."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class StillClock:
    """A clock that stands until a test moves it."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.time = at

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


def utc(epoch_seconds: float) -> datetime:
    """The aware UTC datetime of an epoch time."""
    return datetime.fromtimestamp(epoch_seconds, UTC)
