"""When a batch is due, and what it holds."""

import pytest

from shared.clock import StillClock
from shared.valkey.spend import Claim
from tests.spend_rows import spend_row
from workers.metering.batch import Batch


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def claims(first: int, count: int, shard: int = 0) -> list[Claim]:
    return [Claim(shard, b"%d-0" % (first + at), spend_row(at)) for at in range(count)]


def test_an_empty_batch_is_never_due(clock: StillClock) -> None:
    batch = Batch(clock=clock, max_rows=10, max_age_seconds=1.0)
    clock.advance(100)
    assert not batch.due


def test_a_batch_is_due_once_its_oldest_row_is_too_old(clock: StillClock) -> None:
    batch = Batch(clock=clock, max_rows=10, max_age_seconds=1.0)
    batch.add(claims(1, 1))
    clock.advance(0.9)
    batch.add(claims(2, 1))
    assert not batch.due
    clock.advance(0.1)
    assert batch.due


def test_a_batch_is_due_at_once_when_it_is_full(clock: StillClock) -> None:
    batch = Batch(clock=clock, max_rows=3, max_age_seconds=1.0)
    batch.add(claims(1, 2))
    assert (batch.room, batch.due) == (1, False)
    batch.add(claims(3, 1))
    assert (batch.room, batch.due) == (0, True)


def test_an_entry_that_is_read_twice_is_held_once(clock: StillClock) -> None:
    batch = Batch(clock=clock)
    batch.add(claims(1, 3))
    batch.add(claims(2, 3))
    assert [claim.entry for claim in batch.claims] == [b"1-0", b"2-0", b"3-0", b"4-0"]


def test_entries_of_two_shards_with_one_id_are_two(clock: StillClock) -> None:
    batch = Batch(clock=clock)
    batch.add(claims(1, 1, shard=0) + claims(1, 1, shard=1))
    assert len(batch) == 2


def test_what_stays_after_a_removal_keeps_its_age(clock: StillClock) -> None:
    batch = Batch(clock=clock, max_age_seconds=1.0)
    held = claims(1, 4)
    batch.add(held)
    clock.advance(1.0)
    batch.remove(held[:2])
    assert (len(batch), batch.due) == (2, True)


def test_a_batch_that_was_emptied_counts_age_anew(clock: StillClock) -> None:
    batch = Batch(clock=clock, max_age_seconds=1.0)
    held = claims(1, 1)
    batch.add(held)
    clock.advance(5.0)
    batch.remove(held)
    batch.add(claims(2, 1))
    assert not batch.due
