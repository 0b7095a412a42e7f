"""Pages of the ledger: how time is cut, what a cursor says, and which attempt counts."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import pytest

from shared.clickhouse.usage import MAX_WINDOW, Attempt, Cursor, fold, windows

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SOME_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def attempt(number: int, **changes: object) -> Attempt:
    values: dict[str, object] = {
        "row_id": UUID(int=number), "request_id": SOME_ID, "created_at": NOON,
        "started_at": NOON + timedelta(seconds=number), "attempt": number,
        "tenant": "default", "user": "u", "key_id": "", "endpoint": "embeddings",
        "model": "m", "provider": "p", "tier": "", "status": "failed", "error_code": "",
        "billed": False, "input_tokens": 0, "output_tokens": 0, "cost_usd": Decimal(0),
        "is_priced": True,
    }  # fmt: skip
    return Attempt(**(values | changes))  # type: ignore[arg-type]


def test_windows_touch_grow_and_end_where_the_time_does() -> None:
    low, high = NOON - timedelta(days=100), NOON + timedelta(minutes=30)
    found = list(windows(low, high))
    assert found[0] == (NOON, high)
    assert found[1] == (NOON - timedelta(hours=2), NOON)
    assert found[-1][0] == low
    assert all(newer[0] == older[1] for newer, older in pairwise(found))
    assert max(end - start for start, end in found) == MAX_WINDOW


def test_a_time_without_length_has_no_windows() -> None:
    assert list(windows(NOON, NOON)) == []


def test_a_cursor_comes_back_as_it_was_given() -> None:
    cursor = Cursor(NOON + timedelta(microseconds=7), SOME_ID)
    assert Cursor.read(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "-", "x", "1-2", f"{'f' * 14}-{'0' * 32}", f"-1-{'0' * 32}", f"1-{'g' * 32}"]
)
def test_what_is_not_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.read(text)


def test_the_attempt_that_answered_counts_whatever_came_after_it() -> None:
    answered = attempt(2, status="completed", billed=True, cost_usd=Decimal("0.5"))
    entry, fit = fold([(attempt(1), False), (answered, True), (attempt(3), False)])
    assert (entry.attempt, entry.cost_usd, fit) == (answered, Decimal("0.5"), True)


def test_of_a_request_that_failed_the_last_attempt_counts() -> None:
    entry, _ = fold([(attempt(2), True), (attempt(1), True)])
    assert entry.attempt.attempt == 2
