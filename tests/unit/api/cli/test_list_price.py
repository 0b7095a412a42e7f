"""What genai-prices says, as prices of ours: exact, or not taken."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from api.cli.list_price import Listed, NotTaken, PriceList, load_list
from shared.price import LongContext, Price

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def usd(text: str) -> Decimal:
    return Decimal(text)


def listed(
    prices: ModelPrice | list[ConditionalPrice], variants: list[PriceVariant] | None = None
) -> Listed:
    model = ModelInfo(
        id="m", match=ClauseEquals(equals="m"), prices=prices, price_variants=variants
    )
    provider = Provider(id="p", name="P", api_pattern=r"https://api\.p\.example", models=[model])
    return PriceList([provider]).find("p", "m", NOW)


def price(prices: ModelPrice, variants: list[PriceVariant] | None = None) -> Price:
    ((_, found),) = listed(prices, variants).prices
    return found


def test_every_kind_that_is_metered_has_its_amount_in_our_unit() -> None:
    assert price(
        ModelPrice(
            input_mtok=usd("2.50"), output_mtok=usd("10"), cache_read_mtok=usd("0.25"),
            cache_write_mtok=usd("3.125"), output_reasoning_mtok=usd("11"),
            input_audio_mtok=usd("40"), output_audio_mtok=usd("80"), requests_kcount=usd("12"),
            input_mchars=usd("15"), input_document_kpages=usd("1"), audio_hours=usd("0.36"),
        )
    ) == Price(
        input=usd("2.5"), output=usd("10"), cached_input=usd("0.25"), cache_write=usd("3.125"),
        reasoning=usd("11"), audio_input=usd("40"), audio_output=usd("80"), request=usd("0.012"),
        character=usd("15"), page=usd("0.001"), second=usd("0.0001"),
    )  # fmt: skip


def test_tiers_are_prices_of_long_inputs() -> None:
    tiers = [Tier(start=200_000, price=usd("6")), Tier(start=500_000, price=usd("9"))]
    found = price(
        ModelPrice(
            input_mtok=TieredPrices(base=usd("3"), tiers=tiers),
            output_mtok=TieredPrices(base=usd("15"), tiers=[Tier(start=200_000, price=usd("22"))]),
            cache_read_mtok=usd("0.3"),
        )
    )
    assert (found.input, found.output) == (usd("3"), usd("15"))
    assert found.long_context == (
        LongContext(200_000, usd("6"), usd("22"), cached_input=usd("0.3")),
        LongContext(500_000, usd("9"), usd("22"), cached_input=usd("0.3")),
    )


def test_a_service_tier_that_multiplies_everything_is_taken_and_another_is_told() -> None:
    standard = ModelPrice(input_mtok=usd("0.15"), output_mtok=usd("0.60"))
    variants = [
        PriceVariant({"service_tier": name}, prices)
        for name, prices in {
            "default": standard,
            "flex": ModelPrice(input_mtok=usd("0.075"), output_mtok=usd("0.30")),
            "priority": ModelPrice(input_mtok=usd("0.30")),
        }.items()
    ]
    variants.append(PriceVariant({"processing": "batch"}, ModelPrice(input_mtok=usd("0.1"))))
    found = listed(standard, variants)
    assert found.prices[0].price.service_tiers == {"flex": usd("0.5")}
    assert found.notes == ["service_tier=priority has other prices, which are left out"]


def test_announced_prices_are_rows_of_their_days() -> None:
    found = listed(
        [
            ConditionalPrice(prices=ModelPrice(input_mtok=usd("9"))),
            ConditionalPrice(
                StartDateConstraint(date(2026, 5, 1)), prices=ModelPrice(input_mtok=usd("3"))
            ),
            ConditionalPrice(
                StartDateConstraint(date(2026, 7, 1)), prices=ModelPrice(input_mtok=usd("2"))
            ),
        ]
    )
    assert found.prices == [
        (NOW, Price(input=usd("3"))),
        (datetime(2026, 7, 1, tzinfo=UTC), Price(input=usd("2"))),
    ]


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        ([], "no price"),
        (ModelPrice(), "no price"),
        (ModelPrice(web_searches_kcount=usd("10")), "no price"),
        (ModelPrice(input_mtok=usd("-1")), "negative"),
        (ModelPrice(input_mtok=usd("1000000")), "above 999999"),
        (ModelPrice(audio_hours=usd("1"), input_audio_hours=usd("2")), "several prices"),
        (
            ModelPrice(input_audio_mtok=TieredPrices(usd("1"), [Tier(1000, usd("2"))])),
            "length of the input",
        ),
        (
            [
                ConditionalPrice(prices=ModelPrice(input_mtok=usd("2"))),
                ConditionalPrice(
                    TimeOfDateConstraint(time(16, 30), time(0, 30)),
                    prices=ModelPrice(input_mtok=usd("1")),
                ),
            ],
            "time of day",
        ),
    ],
)
def test_what_would_have_to_be_guessed_is_not_taken(
    prices: ModelPrice | list[ConditionalPrice], reason: str
) -> None:
    with pytest.raises(NotTaken, match=reason):
        listed(prices)


def test_a_service_tier_that_is_cheaper_at_night_is_not_taken() -> None:
    standard = ModelPrice(input_mtok=usd("2"))
    night = TimeOfDateConstraint(time(22), time(6))
    flex = PriceVariant({"service_tier": "flex"}, ModelPrice(input_mtok=usd("1")), night)
    with pytest.raises(NotTaken, match="time of day"):
        listed(standard, [flex])


def test_a_service_tier_begins_on_its_day() -> None:
    begins = StartDateConstraint(date(2026, 7, 1))
    flex = PriceVariant({"service_tier": "flex"}, ModelPrice(input_mtok=usd("1")), begins)
    found = listed(ModelPrice(input_mtok=usd("2")), [flex]).prices
    assert [price.service_tiers for _, price in found] == [{}, {"flex": usd("0.5")}]


def test_what_is_not_metered_by_itself_is_told() -> None:
    found = listed(ModelPrice(input_mtok=usd("1"), cache_write_1h_mtok=usd("2")))
    assert found.notes == ["cache_write_1h_mtok is not metered by itself, and left out"]
    assert found.prices[0].price == Price(input=usd("1"))


def test_a_list_is_found_by_the_address_then_by_the_name() -> None:
    prices = load_list()
    assert prices.provider(name="ours", url="https://api.openai.com/v1") == "openai"
    assert prices.provider(name="groq", url="http://10.0.0.1/v1") == "groq"
    assert prices.provider(name="near", url="https://cloud-api.near.ai/v1") is None
    assert prices.provider(name="sim", url="") is None


def test_the_list_that_is_brought_has_models_and_refuses_others() -> None:
    prices = load_list()
    assert prices.find("openai", "gpt-4o", NOW).prices[0].price.input > 0
    for provider, model, reason in (("openai", "no-such", "does not"), ("nobody", "m", "nobody")):
        with pytest.raises(NotTaken, match=reason):
            prices.find(provider, model, NOW)
