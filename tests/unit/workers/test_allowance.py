"""A stream that passes what is held for: its hold grows, or it ends."""

from decimal import Decimal
from types import SimpleNamespace
from typing import cast

import pytest

from shared.errors import NotPermitted
from shared.price import Price
from tests.unit.workers.jobs import a_held_job
from workers.held import HeldJob
from workers.inference.allowance import Allowance
from workers.inference.attempt import Attempt
from workers.inference.exchange import Recorder


class Budgets:
    """Bears so many nano-dollars more."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[int] = []

    async def extend_hold(self, held: HeldJob, nano: int) -> bytes:
        self.asked.append(nano)
        if nano > self.left:
            return b"denied"
        self.left -= nano
        return b"ok"


def attempt_of(seen: int) -> Attempt:
    row = SimpleNamespace(price=Price(output=Decimal(10)))
    return cast(Attempt, SimpleNamespace(output_seen=seen, row=row))


def allowance(budgets: Budgets) -> Allowance:
    held = a_held_job(output_caps={"sim_echo": 100}, hold_nano=1_000_000)
    begun = Allowance(held, cast(Recorder, budgets))
    begun.begin(100)
    return begun


async def test_nothing_is_asked_for_below_four_fifths() -> None:
    budgets = Budgets(10**9)
    await allowance(budgets).keep(attempt_of(79))
    assert budgets.asked == []


async def test_a_hold_grows_by_half_again_and_again() -> None:
    budgets = Budgets(10**9)
    grown = allowance(budgets)
    for seen in (80, 81, 119, 120):
        await grown.keep(attempt_of(seen))
    assert budgets.asked == [50 * 10_000, 75 * 10_000]
    assert grown.held_nano == 1_000_000 + 125 * 10_000


async def test_where_the_budget_bears_no_more_it_goes_on_to_the_end_of_its_hold_and_no_further() -> (
    None
):
    budgets = Budgets(0)
    last = allowance(budgets)
    for seen in (80, 90, 100):
        await last.keep(attempt_of(seen))
    assert len(budgets.asked) == 1
    with pytest.raises(NotPermitted) as refused:
        await last.keep(attempt_of(101))
    assert refused.value.code == "budget_exceeded"
