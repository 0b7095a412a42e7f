"""/v1/pricing: what models cost from when on. Every key reads it; the master key changes it."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.management import Management, actor_of, answer, moment, nothing, number, route_for
from api.schemas.bodies import AtTime, InPath, Limit, PriceBody, PriceTierBody, Skip
from api.schemas.management import documented
from shared.document import Document, UnknownProvider, priced_name
from shared.errors import InvalidRequest
from shared.postgres.pricing import PriceInfo
from shared.price import LongContext, Price


def router(management: Management, prefix: str) -> APIRouter:
    """Of every key's routes `/history` comes first: the other matches its paths too."""
    both = APIRouter(tags=["pricing"], include_in_schema=prefix == "/v1")
    both.include_router(_readers(management, f"{prefix}/pricing"))
    both.include_router(_writers(management, f"{prefix}/pricing"))
    return both


def _readers(management: Management, path: str) -> APIRouter:
    routes = APIRouter(prefix=path, route_class=route_for(management, "key"))
    prices = management.prices

    @routes.get("", **documented("list_pricing", "PriceList", "403", who="key"))
    async def list_pricing(skip: Skip = 0, limit: Limit = 100) -> Response:
        """All prices, by model, then the newest first."""
        found = await prices.list_prices(skip=skip, limit=limit)
        return answer([document_of(price) for price in found])

    @routes.get(
        "/{model_key:path}/history",
        **documented("get_pricing_history", "PriceList", "403", "404", who="key"),
    )
    async def get_history(model_key: InPath) -> Response:
        """All prices of one model, the newest first."""
        return answer([document_of(price) for price in await prices.history(model_key)])

    @routes.get("/{model_key:path}", **documented("get_pricing", "Price", "403", "404", who="key"))
    async def get_pricing(model_key: InPath, as_of: AtTime = None) -> Response:
        """The price of one model that is in force, now or at a time."""
        return answer(document_of(await prices.in_force(model_key, as_of=as_of)))

    return routes


def _writers(management: Management, path: str) -> APIRouter:
    routes = APIRouter(prefix=path, route_class=route_for(management, "master"))
    prices = management.prices

    @routes.post("", **documented("set_pricing", "Price"))
    async def set_pricing(request: Request, body: PriceBody) -> Response:
        """Add a price, from now on or from a time; one of this very time is changed."""
        key = canonical(management.catalog.current.document, body.model_key)
        at = body.effective_at
        made = await prices.put(key, price_of(body), actor_of(request), effective_at=at)
        await management.price_book.poll()  # this process need not wait for its next look
        return answer(document_of(made))

    @routes.delete("/{model_key:path}", **documented("delete_pricing", None, "404"))
    async def delete_pricing(
        request: Request, model_key: InPath, effective_at: AtTime = None
    ) -> Response:
        """Delete the price of one time, or all prices of a model."""
        await prices.delete(model_key, actor_of(request), effective_at=effective_at)
        await management.price_book.poll()
        return nothing()

    return routes


def canonical(catalog: Document, model_key: str) -> str:
    """A name of the catalog, or `provider:model`. Raises InvalidRequest."""
    try:
        return priced_name(catalog, model_key)
    except ValueError:
        text = (
            "Invalid request: Invalid model format. Expected 'provider:model' or"
            f" 'provider/model', got '{model_key}'"
        )
    except UnknownProvider as error:
        known = ", ".join(sorted(catalog.providers))
        text = f"'{error}' is not a supported provider. Supported providers: {known}"
    raise InvalidRequest(text, param="model_key")


def price_of(body: PriceBody) -> Price:
    return Price(
        input=body.input_price_per_million,
        output=body.output_price_per_million,
        cached_input=body.cache_read_price_per_million,
        cache_write=body.cache_write_price_per_million,
        long_context=tuple(_tier(body, tier) for tier in body.pricing_tiers),
    )


def _tier(base: PriceBody, tier: PriceTierBody) -> LongContext:
    """What a tier does not say is as without it."""

    def rate(name: str) -> Any:
        own = getattr(tier, name)
        return getattr(base, name) if own is None else own

    return LongContext(
        above_tokens=tier.min_input_tokens - 1,
        input=rate("input_price_per_million"),
        output=rate("output_price_per_million"),
        cached_input=rate("cache_read_price_per_million"),
        cache_write=rate("cache_write_price_per_million"),
    )


def document_of(info: PriceInfo) -> dict[str, Any]:
    price = info.price
    return {
        "model_key": info.model_key,
        "effective_at": moment(info.effective_at),
        **_rates(price),
        "pricing_tiers": [
            {"min_input_tokens": one.above_tokens + 1, **_rates(one)} for one in price.long_context
        ],
        "unit": "tokens",
        "created_at": moment(info.created_at),
        "updated_at": moment(info.updated_at),
    }


def _rates(price: Price | LongContext) -> dict[str, Any]:
    return {
        "input_price_per_million": number(price.input),
        "output_price_per_million": number(price.output),
        "cache_read_price_per_million": number(price.cached_input),
        "cache_write_price_per_million": number(price.cache_write),
    }
