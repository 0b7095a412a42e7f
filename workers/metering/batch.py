"""Rows gathered for one insert: due when there are enough of them, or the oldest has waited."""

from collections.abc import Iterable

from shared.clock import Clock
from shared.valkey.spend import Claim

MAX_ROWS = 10_000
"""ClickHouse wants few, large inserts; 10,000 rows are about 5 MB here and 50 ms there."""

MAX_AGE_SECONDS = 1.0
"""How old a row may get before it can be seen; also bounds inserts to one a second when idle."""


class Batch:
    """What was claimed and is not yet stored. An entry read twice is held once."""

    def __init__(
        self,
        *,
        clock: Clock,
        max_rows: int = MAX_ROWS,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self._clock = clock
        self._max_rows = max_rows
        self._max_age = max_age_seconds
        self._held: dict[tuple[int, bytes, int], Claim] = {}
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def claims(self) -> list[Claim]:
        return list(self._held.values())

    @property
    def room(self) -> int:
        return max(0, self._max_rows - len(self._held))

    @property
    def due(self) -> bool:
        return bool(self._held) and (self.room == 0 or self.seconds_left <= 0)

    @property
    def seconds_left(self) -> float:
        """Until age makes it due; a whole age while it is empty."""
        if not self._held:
            return self._max_age
        return self._since + self._max_age - self._clock.monotonic()

    def add(self, claims: Iterable[Claim]) -> None:
        if not self._held:
            self._since = self._clock.monotonic()
        for claim in claims:
            self._held.setdefault((claim.shard, claim.entry, claim.position), claim)

    def remove(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._held.pop((claim.shard, claim.entry, claim.position), None)
