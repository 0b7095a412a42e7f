"""An attempt's row: what is metered and billed, however the call ended."""

from decimal import Decimal

import pytest

from shared.clock import StillClock
from shared.price import Price
from shared.spend import SpendRow, Status, decode_row
from shared.usage import Usage
from tests.unit.workers.jobs import ADMITTED_AT, INPUT_ESTIMATE, a_header, an_attempt
from workers.inference.attempt import Attempt, lost_row

PRICE = Price(input=Decimal(2), output=Decimal(10))
TOLD = Usage(input_tokens=100, output_tokens=50)


def attempt_at(clock: StillClock) -> Attempt:
    return an_attempt(a_header(stream=True, tags={"a": "b"}), price=PRICE, clock=clock)


def ended(attempt: Attempt, status: Status = "completed", *, billed: bool = True) -> SpendRow:
    return attempt.ended(status, error_code=None, billed=billed)


def test_what_the_provider_reports_is_metered_whatever_was_counted() -> None:
    attempt = attempt_at(StillClock())
    attempt.content_arrived(4000)
    attempt.usage_arrived(TOLD)
    row = ended(attempt)
    assert (row.usage, row.usage_source) == (TOLD, "provider")
    assert row.cost_usd == Decimal("0.0007")


def test_the_price_a_job_was_admitted_with_goes_before_the_catalogs() -> None:
    header = a_header(prices={"sim:sim/echo": Price(input=Decimal(3)), "other": PRICE})
    attempt = an_attempt(header, price=PRICE)
    attempt.usage_arrived(TOLD)
    assert ended(attempt).cost_usd == Decimal("0.0003")
    assert decode_row(attempt.recorded()).price == Price(input=Decimal(3))


def test_usage_sent_again_and_again_counts_once_by_its_highest() -> None:
    attempt = attempt_at(StillClock())
    for tokens in (1, 50, 30):
        attempt.usage_arrived(Usage(input_tokens=100, output_tokens=tokens))
    assert ended(attempt).usage == TOLD


@pytest.mark.parametrize(
    ("pieces", "tokens"), [([1, 1, 1], 3), ([800], 100), ([8, 8, 80], 12), ([], 0)]
)
def test_without_usage_the_pieces_or_the_characters_are_counted_whichever_is_more(
    pieces: list[int], tokens: int
) -> None:
    attempt = attempt_at(StillClock())
    for piece in pieces:
        attempt.content_arrived(piece)
    row = ended(attempt)
    assert row.usage == Usage(input_tokens=INPUT_ESTIMATE, output_tokens=tokens)
    assert row.usage_source == "estimated"
    assert row.cost_usd == PRICE.cost(row.usage) > 0


def test_an_attempt_that_failed_over_costs_nothing_and_used_nothing_we_know_of() -> None:
    row = ended(attempt_at(StillClock()), "failed", billed=False)
    assert (row.usage, row.usage_source, row.cost_usd) == (Usage(), "none", Decimal(0))


def test_an_unbilled_attempt_keeps_the_usage_the_provider_reported() -> None:
    attempt = attempt_at(StillClock())
    attempt.usage_arrived(TOLD)
    row = ended(attempt, "failed", billed=False)
    assert (row.usage, row.cost_usd, row.billed) == (TOLD, Decimal(0), False)


def test_an_unbilled_attempt_that_said_something_is_estimated_and_free() -> None:
    attempt = attempt_at(StillClock())
    attempt.content_arrived(1)
    row = ended(attempt, "failed", billed=False)
    assert row.usage == Usage(input_tokens=INPUT_ESTIMATE, output_tokens=1)
    assert (row.usage_source, row.cost_usd) == ("estimated", Decimal(0))


def test_times_are_told_from_admission_to_the_end() -> None:
    clock = StillClock(ADMITTED_AT + 0.6)
    attempt = attempt_at(clock)
    assert attempt.ttft_seconds is None
    clock.advance(0.2)
    attempt.content_arrived(1)
    clock.advance(1)
    attempt.content_arrived(1)
    row = ended(attempt)
    assert row.queue_ms == pytest.approx(500)
    assert row.ttft_ms == pytest.approx(200, abs=0.01)
    assert row.upstream_ms == pytest.approx(1200, abs=0.01)
    assert row.overhead_ms == pytest.approx(100, abs=0.01)
    assert (row.ended_at - row.started_at).total_seconds() == pytest.approx(1.2)
    assert row.created_at.timestamp() == ADMITTED_AT


def test_the_record_before_the_send_is_the_row_of_a_lost_call() -> None:
    attempt = attempt_at(StillClock())
    row = decode_row(attempt.recorded())
    assert (row.status, row.error_code, row.billed, row.cost_usd) == (
        "lost", "worker_lost", False, Decimal(0),
    )  # fmt: skip
    assert (row.row_id, row.tags, row.streamed) == (attempt.row_id, {"a": "b"}, True)
    assert row.price == PRICE


@pytest.mark.parametrize("seen", [0, 7])
def test_a_lost_call_whose_answer_was_seen_is_billed_for_what_was_seen(seen: int) -> None:
    recorded = attempt_at(StillClock()).recorded()
    spoken = lost_row(recorded, clock=StillClock(), spoke=True, output_seen=seen)
    assert (spoken.status, spoken.billed) == ("lost", True)
    assert spoken.usage.output_tokens == seen
    assert spoken.cost_usd == PRICE.cost(spoken.usage)


def test_a_lost_call_nobody_saw_anything_of_costs_nothing() -> None:
    recorded = attempt_at(StillClock()).recorded()
    row = lost_row(recorded, clock=StillClock(5.0), spoke=False, output_seen=0)
    assert (row.status, row.billed, row.cost_usd) == ("lost", False, Decimal(0))
    assert (row.usage, row.usage_source) == (Usage(), "none")
    assert row.ended_at.timestamp() == 5.0
