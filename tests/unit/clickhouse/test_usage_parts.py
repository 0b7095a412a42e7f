"""Which hours of a sum come from the hourly table, and which from rows."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.clickhouse.usage_filter import UsageFilter
from shared.clickhouse.usage_summary import Parts, is_rolled_up

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HALF = timedelta(minutes=30)


def parts(since: datetime, until: datetime, *stale: datetime) -> Parts:
    return Parts.of(UsageFilter(since=since, until=until), list(stale))


def test_whole_hours_without_news_come_from_the_table() -> None:
    assert parts(NOON, NOON + 5 * HOUR) == Parts(NOON, NOON + 5 * HOUR, ())


def test_hours_with_news_come_from_rows_where_they_are_asked_for() -> None:
    found = parts(NOON, NOON + 5 * HOUR, NOON - HOUR, NOON + HOUR, NOON + 5 * HOUR)
    assert found.hours == (NOON + HOUR,)


def test_hours_that_are_asked_for_in_part_come_from_rows() -> None:
    found = parts(NOON + HALF, NOON + 5 * HOUR + HALF)
    assert found == Parts(NOON, NOON + 6 * HOUR, (NOON, NOON + 5 * HOUR))


def test_a_time_inside_one_hour_is_one_hour_of_rows() -> None:
    assert parts(NOON + HALF, NOON + HALF + HALF / 2).hours == (NOON,)


@pytest.mark.parametrize(
    ("wanted", "tag", "rolled_up"),
    [
        (UsageFilter(user="u", model="m", status="error"), None, True),
        (UsageFilter(tag=("team", "blue")), None, False),
        (UsageFilter(tenant="t", status="error"), "team", True),
        (UsageFilter(user="u"), "team", False),
        (UsageFilter(tag=("team", "blue")), "team", False),
    ],
)
def test_by_tag_the_hours_know_nothing_else(
    wanted: UsageFilter, tag: str | None, rolled_up: bool
) -> None:
    assert is_rolled_up(wanted, tag) is rolled_up
