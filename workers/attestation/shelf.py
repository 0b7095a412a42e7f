"""A shelf: what was fetched, by what it is of; fetched by one at a time, and a failure is shared too."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shared.clock import Clock
from workers.attestation.fetcher import EvidenceAway

Thing = TypeVar("Thing")


@dataclass(slots=True)
class _Place(Generic[Thing]):
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    thing: Thing | None = None
    away_until: float = 0.0
    reason: str = ""


class Shelf(Generic[Thing]):
    """Those who wait for a fetch that fails hear of it together: they do not try one after the other."""

    def __init__(self, clock: Clock, *, most: int, away_seconds: float) -> None:
        self._clock = clock
        self._most = most
        self._away_seconds = away_seconds
        self._places: OrderedDict[Hashable, _Place[Thing]] = OrderedDict()

    def look(self, name: Hashable) -> Thing | None:
        """What is there, however old."""
        place = self._places.get(name)
        return None if place is None else place.thing

    async def get(
        self,
        name: Hashable,
        fetch: Callable[[], Awaitable[Thing]],
        *,
        is_fresh: Callable[[Thing], bool],
    ) -> Thing:
        """Raises EvidenceAway."""
        place = self._place(name)
        async with place.lock:
            if place.thing is not None and is_fresh(place.thing):
                return place.thing
            if self._clock.now() < place.away_until:
                raise EvidenceAway(place.reason)
            try:
                place.thing = await fetch()
            except EvidenceAway as error:
                place.away_until = self._clock.now() + self._away_seconds
                place.reason = str(error)
                raise
            return place.thing

    def take_off(self, which: Callable[[Hashable], bool]) -> None:
        for place in self._matching(which):
            place.thing = None

    def _matching(self, which: Callable[[Hashable], bool]) -> Iterator[_Place[Thing]]:
        return (place for name, place in self._places.items() if which(name))

    def _place(self, name: Hashable) -> _Place[Thing]:
        place = self._places.setdefault(name, _Place())
        self._places.move_to_end(name)
        if len(self._places) > self._most:
            self._places.popitem(last=False)
        return place
