"""The judge of the kill tests: each kind of wrong row, call or receipt is noticed, and right ones are not."""

import random
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from tests.e2e.agreement import Row
from tests.e2e.ledger import Verdict, reconcile
from tests.e2e.load import Order, Outcome, Result
from tests.e2e.mixture import DRY_PROFILE, CachedOrder, DryRun, Upload, mixture
from tests.e2e.receipts import receipt_faults
from workers.simulator.ledger import Call

ROW = Row(
    row_id="r1",
    request_id="q1",
    client_request_id="",
    status="completed",
    error_code="",
    usage_source="provider",
    input_tokens=10,
    output_tokens=20,
    attempt=1,
    model="sim_echo",
    provider="sim",
    upstream_model="sim/echo",
    billed=True,
    cached=False,
    cost_usd=Decimal("0.000035"),
)
CALL = Call(
    n=1,
    call_id="c1",
    client_request_id="r1",
    profile="openai",
    model="sim/echo",
    stream=False,
    status="completed",
    prompt_tokens=10,
    completion_tokens=20,
    started_at=0.0,
)
FREE = {"billed": False, "cost_usd": Decimal(0), "usage_source": "none", "input_tokens": 0}
UNSENT = {**FREE, "output_tokens": 0, "row_id": "r2"}
CACHED = {**UNSENT, "cached": True}
DRY = replace(CALL, n=2, client_request_id="r9", profile=DRY_PROFILE, model="sim/chat")


def judged(*rows: Row, calls: tuple[Call, ...] = (CALL,), raw: tuple[int, int] = (1, 1)) -> Verdict:
    versions = {row.row_id: raw for row in rows}
    return reconcile(calls, rows, versions, dry_profile=DRY_PROFILE)


def changed(**changes: Any) -> Row:
    return replace(ROW, **changes)


def test_a_row_that_tells_its_call_is_right() -> None:
    assert judged(ROW).is_clean
    lost = judged(changed(status="lost", **{**FREE, "output_tokens": 0}))
    assert (lost.is_clean, lost.lost) == (True, 1)


def test_rows_without_a_call_may_be_unsent_or_from_the_cache() -> None:
    verdict = judged(ROW, changed(**CACHED), changed(status="lost", **{**UNSENT, "row_id": "r3"}))
    assert verdict.is_clean, verdict
    assert (verdict.cached, verdict.never_sent, verdict.lost) == (1, 1, 0)


def test_a_dry_run_is_a_call_without_a_row() -> None:
    assert judged(ROW, calls=(CALL, DRY)).dry_runs == 1
    assert judged(ROW, calls=(CALL, DRY)).is_clean
    with_row = judged(ROW, changed(row_id="r9"), calls=(CALL, DRY))
    assert any("a row of a dry run" in wrong for wrong in with_row.wrong)


def test_a_call_without_its_row_is_missing() -> None:
    assert len(judged().missing) == 1


def test_two_calls_or_two_rows_of_one_attempt_are_doubled() -> None:
    assert len(judged(ROW, calls=(CALL, replace(CALL, n=2))).doubled) == 1
    assert len(judged(ROW, ROW).doubled) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"output_tokens": 19},
        {"usage_source": "estimated", "output_tokens": 21, "cost_usd": Decimal("0.0000365")},
        {"usage_source": "none"},
        {"cost_usd": Decimal("0.000034999")},
        {"cost_usd": Decimal(0)},
        {"billed": False},
        {"billed": False, "cost_usd": Decimal(0)},
        {"status": "failed", **FREE},
        {"provider": "near_sim"},
        {"provider": "sim_fault", "upstream_model": "sim/fault/500"},
        {"model": "near_sim_chat"},
        {"cached": True},
    ],
    ids=str,
)
def test_a_row_that_tells_something_else_is_wrong(changes: dict[str, Any]) -> None:
    assert judged(changed(**changes)).wrong


@pytest.mark.parametrize(
    "row",
    [
        changed(row_id="r2"),
        changed(**{**CACHED, "billed": True}),
        changed(**{**CACHED, "output_tokens": 1}),
        changed(status="lost", **{**UNSENT, "output_tokens": 1}),
        changed(status="failed", error_code="upstream_protocol_error", **UNSENT),
    ],
    ids=str,
)
def test_a_row_without_a_call_that_must_have_one_is_wrong(row: Row) -> None:
    assert judged(ROW, row).wrong


def test_a_completed_row_of_a_call_that_was_not_is_wrong() -> None:
    assert judged(ROW, calls=(replace(CALL, status="aborted"),)).wrong


def test_one_row_in_two_versions_is_wrong_and_in_two_copies_is_not() -> None:
    assert judged(ROW, raw=(2, 2)).wrong
    assert judged(ROW, raw=(2, 1)).is_clean
    assert judged(ROW, raw=(2, 1)).repeated_inserts == 1


def result(kind: type[Order] = Order, **changes: Any) -> Result:
    order = kind(number=0, model="sim_echo", text="hello", stream=False)
    given = {"outcome": Outcome.COMPLETE, "request_id": "q-1", "cost_usd": "0.000035"}
    return Result(order=order, **{**given, **changes})


@pytest.mark.parametrize(
    ("answered", "rows", "faults"),
    [
        (result(), [ROW], 0),
        (result(cost_usd=""), [ROW], 0),
        (result(cost_usd="0.000036"), [ROW], 1),
        (result(), [], 2),
        (result(), [ROW, changed(row_id="r2", cost_usd=Decimal(0))], 1),
        (result(outcome=Outcome.ERROR, cost_usd=""), [], 0),
        (result(DryRun, cost_usd="0"), [], 0),
        (result(DryRun, cost_usd="0"), [ROW], 1),
    ],
)
def test_what_a_client_was_told_is_what_its_rows_say(
    answered: Result, rows: list[Row], faults: int
) -> None:
    assert len(receipt_faults([answered], rows)) == faults


def test_the_mixture_has_every_kind_and_asks_the_dry_model_for_dry_runs_alone() -> None:
    made = mixture(1000, random.Random(1))
    assert [order.number for order in made] == list(range(1000))
    counts = {kind: sum(type(order) is kind for order in made) for kind in (CachedOrder, Upload)}
    assert counts == {CachedOrder: 60, Upload: 50}
    dry = [order for order in made if isinstance(order, DryRun)]
    assert len(dry) == 60
    assert dry == [order for order in made if order.model == "vercel_sim_chat"]
