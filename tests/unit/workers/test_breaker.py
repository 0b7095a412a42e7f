"""The breaker: many failures in a row open it; after a pause one call tries the provider."""

from shared.clock import StillClock
from shared.document import Breaker as Settings
from workers.inference.breaker import Breaker


def opened(clock: StillClock) -> Breaker:
    breaker = Breaker(Settings(failures=3, open_seconds=10), clock)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_it_opens_after_enough_failures_in_a_row() -> None:
    breaker = opened(StillClock())
    assert breaker.is_open
    assert not breaker.allows()


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(Settings(failures=3, open_seconds=10), StillClock())
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.allows()


def test_after_the_pause_one_call_is_let_through_and_its_success_closes_it() -> None:
    clock = StillClock()
    breaker = opened(clock)
    clock.advance(10)
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()


def test_a_failed_trial_opens_it_again_and_an_abandoned_one_lets_another_try() -> None:
    clock = StillClock()
    breaker = opened(clock)
    clock.advance(10)
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    clock.advance(10)
    assert breaker.allows()
    breaker.abandoned()
    assert breaker.allows()
