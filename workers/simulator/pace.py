"""How fast the simulator answers: one frozen value, replaced as a whole while it runs."""

from typing import Annotated

import msgspec

# A day bounds every wait, so that a slip of the hand cannot mean "for ever".
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=86_400_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call keeps the pace it began with."""

    latency_ms: Milliseconds = 0.0
    """Before anything is sent, headers included."""
    first_token_ms: Milliseconds = 0.0
    """Between a stream's headers and its first event; a whole answer waits as long."""
    tokens_per_second: Rate = 0.0
    """0: as fast as the client reads."""
    slow_first_byte_seconds: Seconds = 30.0
    stall_after_tokens: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 5
    stall_seconds: Seconds = 300.0
    endless_tokens_per_second: Rate = 1_000.0
    """For endless answers when no token rate is set: unbounded, they would eat a whole core."""

    @property
    def waits(self) -> bool:
        return bool(self.latency_ms or self.first_token_ms or self.tokens_per_second)

    def changed(self, change: dict[str, object]) -> "Pace":
        """This pace with some members replaced. Raises msgspec.ValidationError."""
        return msgspec.convert({**msgspec.to_builtins(self), **change}, Pace)


class Pacemaker:
    """Holds the pace in force."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
