"""What a job sets aside: never less than it can cost."""

from decimal import Decimal

import pytest

from shared.hold import Bounds, input_rate, output_rate, round_up, worst_case
from shared.price import LongContext, Price
from shared.usage import Usage

BOUNDS = Bounds(input_tokens=1_000_000, output_tokens=500_000, seconds=60, images=2)


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (Price(), "0"),
        (Price(Decimal(3), Decimal(15)), "10.5"),
        (Price(Decimal(3), Decimal(15), Decimal("0.3")), "10.5"),
        (Price(Decimal(3), Decimal(15), cache_write=Decimal("3.75")), "11.25"),
        (Price(Decimal(1), Decimal(2), audio_input=Decimal(40), audio_output=Decimal(80)), "80"),
        (Price(Decimal(1), Decimal(2), reasoning=Decimal(4)), "3"),
        (Price(request=Decimal("0.001")), "0.001"),
        (Price(second=Decimal("0.0001")), "0.006"),
        (Price(image={"": Decimal("0.04"), "1024x1024/hd": Decimal("0.08")}), "0.16"),
        (Price(Decimal(1), Decimal(2), service_tiers={"priority": Decimal(2)}), "4"),
        (Price(Decimal(1), Decimal(2), service_tiers={"flex": Decimal("0.5")}), "2"),
        (
            Price(
                Decimal(1),
                Decimal(2),
                long_context=(LongContext(200_000, Decimal(2), Decimal(3)),),
            ),
            "3.5",
        ),
    ],
)
def test_every_unit_is_held_for_at_the_dearest_rate_that_may_apply(
    price: Price, dollars: str
) -> None:
    assert worst_case(price, BOUNDS) == Decimal(dollars)


def test_no_use_within_the_bounds_costs_more_than_is_held() -> None:
    price = Price(
        Decimal(3), Decimal(15), Decimal("0.3"), cache_write=Decimal("3.75"),
        reasoning=Decimal(20), request=Decimal("0.01"),
        service_tiers={"priority": Decimal("1.5"), "flex": Decimal("0.5")},
        long_context=(LongContext(100_000, Decimal(6), Decimal(30)),),
    )  # fmt: skip
    held = worst_case(price, Bounds(input_tokens=200_000, output_tokens=1000))
    for tier in ("", "priority", "flex"):
        for written in (0, 200_000):
            usage = Usage(
                input_tokens=200_000,
                output_tokens=1000,
                cache_write_tokens=written,
                reasoning_tokens=1000,
            )
            assert price.cost(usage, tier) <= held


def test_a_hold_is_rounded_up_to_a_nano_dollar() -> None:
    assert round_up(Decimal("0.0000000001")) == 1
    assert round_up(Decimal("0.000000002")) == 2


def test_a_hold_above_all_budgets_is_refused_by_all_and_still_a_number_scripts_can_count() -> None:
    assert 9_000_000 * 10**9 < round_up(Decimal(10) ** 20) < 2**53


def test_the_rates_are_the_dearest_of_their_kind() -> None:
    price = Price(Decimal(1), Decimal(2), audio_input=Decimal(5), reasoning=Decimal(7))
    assert input_rate(price) == Decimal(5)
    assert output_rate(price) == Decimal(7)
