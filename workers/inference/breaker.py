"""Leaves a provider alone for a while after many failures in a row."""

from shared.clock import Clock
from shared.document import Breaker as BreakerSettings


class Breaker:
    """Closed: calls pass. Open: none does, for `open_seconds`. Then one call tries it."""

    def __init__(self, settings: BreakerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._clock.monotonic() < self._open_until

    @property
    def open_seconds_left(self) -> float:
        return max(0.0, self._open_until - self._clock.monotonic())

    def allows(self) -> bool:
        """Whether a call may be made now. After the pause one caller is let through to try."""
        if self._failures < self._settings.failures:
            return True
        if self.is_open or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._probing = False
        self._open_until = 0.0

    def failed(self) -> None:
        """A failure of the provider's, not of the request: a 400 says nothing against it."""
        self._failures += 1
        self._probing = False
        if self._failures >= self._settings.failures:
            self._open_until = self._clock.monotonic() + self._settings.open_seconds

    def abandoned(self) -> None:
        """The call was cancelled before it showed anything."""
        self._probing = False
