"""What is fetched once serves all; and so does a failure."""

import asyncio

import pytest

from shared.clock import StillClock
from workers.attestation.fetcher import EvidenceAway
from workers.attestation.shelf import Shelf


class Source:
    """Answers once it is let."""

    def __init__(self, *answers: str | EvidenceAway) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.go_on = asyncio.Event()

    async def fetch(self) -> str:
        self.asked += 1
        await self.go_on.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, EvidenceAway):
            raise answer
        return answer


def shelf(clock: StillClock, most: int = 10) -> Shelf[str]:
    return Shelf(clock, most=most, away_seconds=2.0)


def always(_: str) -> bool:
    return True


async def all_of(kept: Shelf[str], source: Source, count: int) -> list[str | BaseException]:
    calls = [kept.get("a", source.fetch, is_fresh=always) for _ in range(count)]
    source.go_on.set()
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_those_who_ask_at_once_are_served_by_one_fetch():
    source = Source("thing")
    assert await all_of(shelf(StillClock()), source, 5) == ["thing"] * 5
    assert source.asked == 1


async def test_those_who_wait_hear_of_a_failure_together():
    source = Source(EvidenceAway("slow"), "thing")
    found = await all_of(shelf(StillClock()), source, 5)
    assert [str(one) for one in found] == ["slow"] * 5
    assert source.asked == 1


async def test_a_failure_is_forgotten_after_a_while():
    source, clock = Source(EvidenceAway("slow"), "thing"), StillClock()
    kept = shelf(clock)
    await all_of(kept, source, 1)
    clock.advance(2.1)
    assert await kept.get("a", source.fetch, is_fresh=always) == "thing"


async def test_what_is_not_fresh_is_fetched_again_and_what_is_gone_too():
    source = Source("old", "new", "newest")
    source.go_on.set()
    kept = shelf(StillClock())
    assert await kept.get("a", source.fetch, is_fresh=always) == "old"
    assert await kept.get("a", source.fetch, is_fresh=lambda one: one != "old") == "new"
    kept.take_off(lambda name: name == "a")
    assert kept.look("a") is None
    assert await kept.get("a", source.fetch, is_fresh=always) == "newest"


async def test_no_more_than_so_many_things_are_kept():
    source = Source("one", "two", "three")
    source.go_on.set()
    kept = shelf(StillClock(), most=2)
    for name in "abc":
        await kept.get(name, source.fetch, is_fresh=always)
    assert [kept.look(name) for name in "abc"] == [None, "two", "three"]


async def test_who_stops_waiting_leaves_the_others_their_turn():
    source = Source("thing", "thing")
    kept = shelf(StillClock())
    first = asyncio.ensure_future(kept.get("a", source.fetch, is_fresh=always))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.go_on.set()
    assert await kept.get("a", source.fetch, is_fresh=always) == "thing"
