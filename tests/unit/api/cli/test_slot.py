"""What dies is started again at once, unless it dies right after its start."""

from api.cli.slot import Backoff


def test_a_life_of_a_second_is_followed_by_the_next_at_once():
    assert Backoff().after(1.0) == 0.0


def test_short_lives_wait_longer_each_time_up_to_five_seconds():
    backoff = Backoff()
    assert [backoff.after(0.2) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_long_life_forgives_the_short_ones_before():
    backoff = Backoff()
    backoff.after(0.2)
    backoff.after(0.2)
    assert backoff.after(30.0) == 0.0
    assert backoff.after(0.2) == 0.1


def test_lives_of_a_second_are_forgiven_three_times_in_a_row():
    backoff = Backoff()
    assert [backoff.after(1.2) for _ in range(5)] == [0.0, 0.0, 0.0, 0.1, 0.2]
