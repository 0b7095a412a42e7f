from decimal import Decimal

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from api import problems
from api.price_book import PriceBook
from api.providers import Availability
from api.routes.models import Models, router
from shared.caller import ANONYMOUS_CALLER, Caller
from shared.catalog import Catalog
from shared.clock import StillClock
from shared.document import Document, Model, ModelProvider, Provider
from shared.postgres.pricing import DatedPrice, PriceVersion
from shared.price import Price

PROVIDERS = {
    "near": Provider(type="near", base_url="https://near.test/v1", api_key_env="NEAR_KEY"),
    "vercel": Provider(type="vercel", base_url="https://vercel.test/v1", api_key_env="VERCEL_KEY"),
    "plain": Provider(base_url="https://plain.test/v1"),
    "keyless": Provider(base_url="https://keyless.test/v1", api_key_env="MISSING_KEY"),
    "off": Provider(base_url="https://off.test/v1", enabled=False),
    "nowhere": Provider(base_url_env="MISSING_URL"),
}


def model(*providers: str, **more) -> Model:
    routes = [ModelProvider(provider=name, upstream_model="m") for name in providers]
    return Model(providers=routes, **more)


MODELS = {
    "tee": model("near", tier="TEE"),
    "zdr": model("vercel", tier="ZDR"),
    "free/of:tier": model("off", "plain", price=Price(Decimal("0.05"), Decimal("12.5"))),
    "inactive": model("plain", active=False),
    "inactive_too": Model(
        providers=[ModelProvider(provider="plain", upstream_model="n")], active=False
    ),
    "without_key": model("keyless"),
    "switched_off": model("off"),
    "without_address": model("nowhere"),
}
SECRETS = {"NEAR_KEY": SecretStr("a"), "VERCEL_KEY": SecretStr("b")}


class Watch:
    current = Catalog(Document(providers=PROVIDERS, models=MODELS))


class Somebody:
    """Stands where the resolver does; who calls is not what is tested here."""

    caller_is: Caller = ANONYMOUS_CALLER

    async def caller(self, headers, address) -> Caller:
        return self.caller_is


@pytest.fixture
def somebody() -> Somebody:
    return Somebody()


class Prices:
    """Rows of the database; a test puts its own."""

    def __init__(self) -> None:
        self.rows: list[DatedPrice] = []

    async def version(self) -> PriceVersion:
        return PriceVersion(len(self.rows), len(self.rows))

    async def charged_from(self, at) -> list[DatedPrice]:
        return self.rows


@pytest.fixture
def prices() -> Prices:
    return Prices()


@pytest.fixture
def book(prices) -> PriceBook:
    return PriceBook(prices, StillClock())


@pytest.fixture
async def client(somebody, book):
    app = FastAPI(redirect_slashes=False)
    models = Models(
        catalog=Watch(),
        availability=Availability(lambda name: SECRETS.get(name or "")),
        prices=book,
        clock=StillClock(),
    )
    app.include_router(router(models, somebody, "/v1"))
    problems.install(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def ids(client, query="") -> list[str]:
    answer = await client.get(f"/v1/models{query}")
    assert answer.json()["object"] == "list"
    return [entry["id"] for entry in answer.json()["data"]]


async def test_only_models_that_can_be_served_are_listed_by_id(client):
    assert await ids(client) == ["free/of:tier", "tee", "zdr"]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("?allow_tee=false", ["free/of:tier", "zdr"]),
        ("?allow_zdr=FALSE", ["free/of:tier", "tee"]),
        ("?allow_tee=False&allow_zdr=false", ["free/of:tier"]),
        ("?allow_tee=true&allow_zdr=TRUE", ["free/of:tier", "tee", "zdr"]),
    ],
)
async def test_a_filter_takes_a_tier_away_and_leaves_what_has_none(client, query, left):
    assert await ids(client, query) == left


@pytest.mark.parametrize("value", ["", "0", "1", "no", "off", "yes", " true", "null"])
@pytest.mark.parametrize("name", ["allow_tee", "allow_zdr"])
async def test_a_filter_is_true_or_false_and_nothing_else(client, name, value):
    answer = await client.get("/v1/models", params={name: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == name


async def test_an_entry_has_every_member_and_exact_prices(client):
    answer = await client.get("/v1/models/free/of:tier")
    assert answer.json() == {
        "id": "free/of:tier",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "plain",
        "is_active": True,
        "input_cost_per_token": 0.00000005,
        "output_cost_per_token": 0.0000125,
        "max_input_tokens": None,
        "max_output_tokens": None,
        "input_modalities": ["text"],
        "output_modalities": ["text"],
        "display_name": "free/of:tier",
        "model_info": {"tier": None, "providers": ["plain"], "description": ""},
        "pricing": {"input_price_per_million": 0.05, "output_price_per_million": 12.5},
    }
    assert '"input_cost_per_token":0.00000005,' in answer.text


@pytest.mark.parametrize("path", ["free%2Fof%3Atier", "free/of%3Atier"])
async def test_an_id_may_be_encoded(client, path):
    assert (await client.get(f"/v1/models/{path}")).json()["id"] == "free/of:tier"


@pytest.mark.parametrize("name", ["nope", "inactive", "without_key", "switched_off"])
async def test_a_model_that_cannot_be_served_is_not_found(client, name):
    answer = await client.get(f"/v1/models/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_a_key_for_some_models_sees_no_others(client, somebody):
    somebody.caller_is = Caller("default", "u", "k", allowed_models=frozenset({"tee"}))
    assert await ids(client) == ["tee"]
    assert (await client.get("/v1/models/zdr")).status_code == 404


async def put(prices, book, *keys: str) -> None:
    """At one dollar, and from a time to come on at two."""
    for at, dollars in ((1_600_000_000, 1), (1_800_000_000, 2)):
        price = Price(Decimal(dollars), Decimal("1.50"))
        prices.rows += [DatedPrice(key, at, price, at - 9.5) for key in keys]
    await book.poll()


async def test_what_has_a_price_is_listed_unless_its_model_is_inactive(client, prices, book):
    await put(prices, book, "plain:new", "keyless/of:late", "without_key", "inactive", "gone:m")
    listed = ["free/of:tier", "keyless/of:late", "plain:new", "tee", "without_key", "zdr"]
    assert await ids(client) == listed
    found = (await client.get("/v1/models/plain:new")).json()
    assert (found["created"], found["owned_by"], found["is_active"]) == (
        1_799_999_990, "plain", True
    )  # fmt: skip
    assert found["pricing"] == {"input_price_per_million": 1, "output_price_per_million": 1.5}
    assert (await client.get("/v1/models/without_key")).json()["is_active"] is False
    assert (await client.get("/v1/models/gone:m")).status_code == 404


async def test_a_route_of_inactive_models_alone_is_not_listed_by_its_price(client, prices, book):
    await put(prices, book, "plain:m", "plain:n")
    assert await ids(client) == ["free/of:tier", "plain:m", "tee", "zdr"]


async def test_the_databases_price_is_the_one_shown(client, prices, book):
    await put(prices, book, "free/of:tier", "near:m")
    shown = {one: (await client.get(f"/v1/models/{one}")).json() for one in ("free/of:tier", "tee")}
    for entry in shown.values():
        assert entry["input_cost_per_token"] == 0.000001
        assert entry["created"] == 1_700_000_000


async def test_a_key_for_some_models_sees_no_other_prices(client, somebody, prices, book):
    await put(prices, book, "plain:new", "plain/old")
    somebody.caller_is = Caller("default", "u", "k", allowed_models=frozenset({"plain:old"}))
    assert await ids(client) == ["plain/old"]
