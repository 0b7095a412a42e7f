"""What a list of prices would change of what is charged."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from typing_extensions import override

from api.cli.list_price import Dated, Listed, NotTaken, PriceList
from api.cli.price_plan import Change, Plan, Wanted, ways
from api.price_book import DatedPrices
from shared.catalog import Catalog
from shared.errors import InvalidRequest, NotFound
from shared.postgres.pricing import DatedPrice
from shared.price import Price

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
DOCUMENT = Catalog.from_toml(
    """
[providers.p]
[providers.q]
[models.m]
price = { input = 1, image = { "" = 5 } }
providers = [
  { provider = "p", upstream_model = "up" },
  { provider = "q", upstream_model = "up", price = { input = 2 } },
]
[models.same]
providers = [{ provider = "p", upstream_model = "up" }]
[models.off]
active = false
providers = [{ provider = "p", upstream_model = "off" }]
"""
).document


class Known(PriceList):
    """Of the provider `p` alone."""

    def __init__(self, *prices: Dated) -> None:
        self.prices = list(prices)

    @override
    def provider(self, *, name: str, url: str) -> str | None:
        return "listed" if name == "p" else None

    @override
    def find(self, provider: str, model: str, at: datetime) -> Listed:
        if model != "up":
            raise NotTaken("it is unknown")
        return Listed(f"{provider}/{model}", self.prices, ["it is told"])


def cost(dollars: str) -> Price:
    return Price(input=Decimal(dollars))


def planned(
    *prices: Dated, rows: Sequence[tuple[str, datetime, Price]] = (), **wanted: Any
) -> tuple[list[Change], list[str]]:
    charged = DatedPrices(DatedPrice(key, at.timestamp(), price, 0) for key, at, price in rows)
    plan = Plan(Known(*prices), charged, DOCUMENT, lambda _name: None)
    asked = Wanted(at=NOW, **wanted)
    return [one for way in ways(DOCUMENT, asked) for one in plan.changes(way, asked)], plan.notes


def told(change: Change) -> list[str]:
    return [f"{kind}: {now} -> {new}" for kind, now, new in change.differences]


def test_each_way_to_an_active_model_is_compared_once() -> None:
    changes, notes = planned(Dated(NOW, cost("3")))
    (change,) = changes
    assert (change.key, change.effective_at) == ("p:up", NOW)
    assert told(change) == ["input: 1 -> 3"]
    assert change.differences[0].percent == "+200.0%"
    assert change.price.image == {"": 5}, "the list does not speak of images"
    assert notes == [
        "p:up, as listed/up: it is told",
        "genai-prices has no list of q; --from names another's",
    ]


def test_a_list_that_is_named_serves_every_provider() -> None:
    changes, _ = planned(Dated(NOW, cost("3")), source="other", provider="q")
    assert [(one.key, told(one)) for one in changes] == [("q:up", ["input: 2 -> 3"])]


def test_what_is_charged_already_does_not_differ() -> None:
    assert planned(Dated(NOW, cost("1.00")))[0] == []
    price = Dated(NOW, cost("3"))
    for key in ("p:up", "p/up", "m"):
        kept = Price(input=Decimal(3), image={"": Decimal(5)})
        assert planned(price, rows=[(key, NOW, kept)], model="m", provider="p")[0] == []


def test_a_price_that_ends_is_followed_by_the_one_announced() -> None:
    changes, _ = planned(Dated(NOW, cost("3")), Dated(LATER, cost("1")))
    assert [(one.effective_at, told(one)) for one in changes] == [
        (NOW, ["input: 1 -> 3"]),
        (LATER, ["input: 3 -> 1"]),
    ]
    written = [("p:up", one.effective_at, one.price) for one in changes]
    assert planned(Dated(NOW, cost("3")), Dated(LATER, cost("1")), rows=written)[0] == []


@pytest.mark.parametrize(("model", "keys"), [("m", ["p:up", "q:up"]), ("q/up", ["q:up"])])
def test_a_model_may_be_named_by_the_catalog_or_by_its_provider(model, keys) -> None:
    assert [way.key for way in ways(DOCUMENT, Wanted(at=NOW, model=model))] == keys


def test_a_model_outside_the_catalog_may_be_named() -> None:
    (way,) = ways(DOCUMENT, Wanted(at=NOW, model="p/org/new"))
    assert (way.key, way.price) == ("p:org/new", None)
    _, notes = planned(model="p/org/new")
    assert notes == ["p:org/new is left as it is: it is unknown"]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"model": "nobody:m"}, InvalidRequest),
        ({"model": "off"}, NotFound),
        ({"provider": "nobody"}, NotFound),
        ({"model": "p/new", "provider": "q"}, NotFound),
    ],
)
def test_nothing_that_could_be_meant_is_an_error(wanted, error) -> None:
    with pytest.raises(error):
        ways(DOCUMENT, Wanted(at=NOW, **wanted))
