"""A deadline that is moved often and rarely met: one timer, replaced only when it is too late."""

import asyncio
from collections.abc import Callable

CLOCK_GRAIN_SECONDS = 0.002  # uvloop's clock counts milliseconds, so a timer may come that early


class Deadline:
    """Moving it costs an assignment: a timer that rings early looks where the deadline is now."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """From now on; None waits for ever."""
        if seconds is None:
            self._at = None
            return
        at = self._at = self._loop.time() + seconds
        timer = self._timer
        if timer is None or timer.when() > at:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(at, self._ring)

    def clear(self) -> None:
        self._at = None

    def cancel(self) -> None:
        """The last call: also lets go of the timer."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._at - self._loop.time() > CLOCK_GRAIN_SECONDS:
            self._timer = self._loop.call_at(self._at, self._ring)
        else:
            self._at = None
            self._expired()
