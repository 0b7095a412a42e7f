"""Which price is in force: of the database's rows, at a time, for the routes a request may take."""

from datetime import datetime
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from api.price_book import PriceBook
from api.selection import Selection, select
from shared.caller import Caller
from shared.catalog import Catalog
from shared.clock import StillClock
from shared.dialects.request import InferenceRequest
from shared.ids import new_id
from shared.postgres.pricing import DatedPrice, PriceVersion
from shared.price import Price

NOW = 1_700_000_000.0
CATALOG = Catalog.from_toml(
    """
[providers.p]
[providers.q]
[models.m]
providers = [{ provider = "p", upstream_model = "up" }, { provider = "q", upstream_model = "up" }]
[models.n]
providers = [{ provider = "p", upstream_model = "n" }]
[models.o]
providers = [{ provider = "q", upstream_model = "o" }]
[functions.f]
fallback = ["w"]
[functions.f.variants.v]
model = "m"
[functions.f.variants.w]
model = "n"
weight = 0
[functions.f.variants.best]
type = "best_of_n"
weight = 0
candidates = ["v"]
evaluator = { model = "o" }
"""
)


def costing(dollars: int) -> Price:
    return Price(input=Decimal(dollars))


class Store:
    """Rows as Postgres would give them; can be away, and counts its full reads."""

    def __init__(self, *rows: tuple[str, float, int]) -> None:
        self.reads = 0
        self.writes = 0
        self.away = False
        self.put(*rows)

    def put(self, *rows: tuple[str, float, int]) -> None:
        self.rows = [DatedPrice(key, at, costing(dollars), NOW) for key, at, dollars in rows]
        self.writes += 1

    async def version(self) -> PriceVersion:
        if self.away:
            raise ConnectionRefusedError
        return PriceVersion(len(self.rows), self.writes)

    async def charged_from(self, at: datetime) -> list[DatedPrice]:
        self.reads += 1
        return self.rows


async def book_of(*rows: tuple[str, float, int]) -> PriceBook:
    book = PriceBook(Store(*rows), StillClock(NOW))
    await book.start()
    return book


def selected(model: str, variant: str | None = None) -> Selection:
    request = InferenceRequest(fields={}, model=model, variant_name=variant)
    return select(CATALOG, Caller(tenant="t", user="u", key_id=None), request, new_id())


async def test_a_future_price_comes_into_force_at_its_second_without_another_look() -> None:
    book = await book_of(("m", NOW + 5, 2), ("m", NOW - 9, 1), ("m", NOW - 90, 7))
    assert book.price(["m"], NOW - 10) == costing(7)
    assert book.price(["m"], NOW + 4.999) == costing(1)
    assert book.price(["m"], NOW + 5) == costing(2)


async def test_the_first_key_with_a_price_in_force_decides() -> None:
    book = await book_of(("p:up", NOW + 5, 1), ("p/up", NOW, 2), ("m", NOW, 3))
    keys = ["p:up", "p/up", "m"]
    assert book.price(keys, NOW) == costing(2)
    assert book.price(keys, NOW + 5) == costing(1)
    assert book.price(["q:up", "m"], NOW) == costing(3)
    assert book.price(["q:up"], NOW) is None


async def test_each_route_has_its_own_price_before_its_models() -> None:
    book = await book_of(("p/up", NOW, 1), ("m", NOW, 2))
    assert book.of(CATALOG, selected("m"), NOW) == {"p:up": costing(1), "q:up": costing(2)}
    assert book.of(CATALOG, selected("n"), NOW) == {}


async def test_a_model_outside_the_catalog_has_its_routes_price() -> None:
    book = await book_of(("p:other", NOW, 4))
    assert book.of(CATALOG, selected("p/other"), NOW) == {"p:other": costing(4)}


@pytest.mark.parametrize(
    ("variant", "routes"),
    [
        (None, {"p:up", "q:up", "p:n"}),
        ("v", {"p:up", "q:up"}),
        ("best", {"p:up", "q:up", "q:o"}),
    ],
)
async def test_a_function_brings_the_prices_of_all_it_may_ask(variant, routes) -> None:
    book = await book_of(*((name, NOW, 1) for name in "mno"))
    found = book.of(CATALOG, selected("ollm::function_name::f", variant), NOW)
    assert set(found) == routes


async def test_prices_are_read_again_only_when_one_changed() -> None:
    store = Store(("m", NOW, 1))
    book = PriceBook(store, StillClock(NOW))
    await book.start()
    await book.poll()
    assert store.reads == 1
    store.put(("m", NOW, 2))
    await book.poll()
    assert book.price(["m"], NOW) == costing(2)
    store.put()
    await book.poll()
    assert book.prices.is_empty
    assert book.price(["m"], NOW) is None


async def test_with_postgres_away_the_prices_stay_and_one_line_is_logged() -> None:
    store = Store(("m", NOW, 1))
    book = PriceBook(store, StillClock(NOW))
    await book.start()
    store.away = True
    with capture_logs() as lines:
        await book.poll()
        await book.poll()
    assert [line["action"] for line in lines] == ["prices_stale"]
    assert book.price(["m"], NOW) == costing(1)
    store.away = False
    store.put(("m", NOW, 2))
    await book.poll()
    assert book.price(["m"], NOW) == costing(2)


async def test_a_start_without_prices_fails() -> None:
    store = Store()
    store.away = True
    with pytest.raises(ConnectionRefusedError):
        await PriceBook(store, StillClock(NOW)).start()
