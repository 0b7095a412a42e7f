"""GET /v1/models: what can be asked for here, with tier, price and limits."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from fastapi import APIRouter, Request, Response

from api.auth import Authenticator, address_of
from api.middleware import HasCatalog
from api.price_book import PriceBook
from api.providers import Availability
from api.schemas.errors import answer, refusals
from api.schemas.links import FROM_MODEL, FROM_MODELS
from api.schemas.models import TIER_FILTERS
from shared.caller import Caller
from shared.catalog import Catalog
from shared.clock import Clock
from shared.document import Document, Model
from shared.errors import InvalidRequest, NotFound
from shared.money import as_json
from shared.price import MILLION, UNPRICED, price_key

FILTERS = {"allow_tee": "TEE", "allow_zdr": "ZDR"}
BOOLEANS = {"true": True, "false": False}

_encode = msgspec.json.Encoder().encode


class Shown(NamedTuple):
    id: str
    model: Model
    name: str
    """By which keys are allowed to use it."""
    created: int


class Models:
    """The list, apart from the routes that give it."""

    def __init__(
        self,
        *,
        catalog: HasCatalog,
        availability: Availability,
        prices: PriceBook,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._availability = availability
        self._book = prices
        self._clock = clock
        self._started = int(clock.now())
        """The catalog does not say when a model was made; the process's start has to do."""

    def entries(self, caller: Caller, hidden_tiers: frozenset[str]) -> list[dict[str, Any]]:
        """Sorted by id. A model without a tier is never hidden by tier."""
        catalog = self._catalog.current
        return [
            self._entry(catalog.document, shown)
            for _, shown in sorted(self._shown(catalog).items())
            if shown.model.tier not in hidden_tiers and _may_see(caller, shown)
        ]

    def entry(self, caller: Caller, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        catalog = self._catalog.current
        shown = self._shown(catalog).get(name)
        if shown is None or not _may_see(caller, shown):
            raise NotFound(f"Model '{name}' not found", code="model_not_found")
        return self._entry(catalog.document, shown)

    def _shown(self, catalog: Catalog) -> dict[str, Shown]:
        """By id: what can be served, and what has a price and is not inactive."""
        shown, hidden = {}, set(_inactive(catalog.document))
        for row in self._book.prices.newest():
            key = row.model_key
            target = None if key in hidden else catalog.resolve(key)
            if target is not None and target.name not in hidden:
                is_listed = key in catalog.document.models
                created = self._started if is_listed else int(row.created_at)
                shown[key] = Shown(key, target.model, target.name, created)
        for name, model in self._availability.models(catalog.document).items():
            shown[name] = Shown(name, model, name, self._started)
        return shown

    def _entry(self, document: Document, shown: Shown) -> dict[str, Any]:
        name, model = shown.id, shown.model
        routes = [
            route
            for route in model.providers
            if self._availability.is_on(document.providers[route.provider])
        ]
        first = (routes or model.providers)[0]
        price = self._book.prices.of_route(first, name, self._clock.now())
        price = price or model.price or UNPRICED
        return {
            "id": name,
            "object": "model",
            "created": shown.created,
            "owned_by": first.provider,
            "is_active": bool(routes),
            "input_cost_per_token": _per_token(price.input),
            "output_cost_per_token": _per_token(price.output),
            "max_input_tokens": model.max_input_tokens,
            "max_output_tokens": model.max_output_tokens,
            "input_modalities": model.input_modalities,
            "output_modalities": model.output_modalities,
            "display_name": model.display_name or name,
            "model_info": {
                "tier": model.tier or None,
                "providers": [route.provider for route in routes],
                "description": model.description,
            },
            "pricing": {
                "input_price_per_million": as_json(price.input),
                "output_price_per_million": as_json(price.output),
            },
        }


def _inactive(document: Document) -> Iterator[str]:
    """The names of inactive models, and the routes that none but those have."""
    active = {
        price_key(route.provider, route.upstream_model)
        for model in document.models.values()
        if model.active
        for route in model.providers
    }
    for name, model in document.models.items():
        if not model.active:
            yield name
            for route in model.providers:
                key = price_key(route.provider, route.upstream_model)
                if key not in active:
                    yield key


def router(models: Models, authenticator: Authenticator, prefix: str) -> APIRouter:
    """`prefix` is `/v1` or its other name."""
    routes = APIRouter(prefix=prefix, tags=["models"])
    shown = prefix == "/v1"

    @routes.get(
        "/models",
        include_in_schema=shown,
        operation_id="list_models",
        responses={
            200: {**answer("The active models.", "Models"), "links": FROM_MODELS},
            **refusals("400", "401", "503"),
        },
        openapi_extra={"parameters": TIER_FILTERS},
    )
    async def list_models(request: Request) -> Response:
        """The active models. `allow_tee=false` and `allow_zdr=false` hide the models of a tier."""
        caller = await authenticator.caller(request.headers.raw, address_of(request.scope))
        entries = models.entries(caller, hidden_tiers(request))
        return _json({"object": "list", "data": entries})

    @routes.get(
        "/models/{model_id:path}",
        include_in_schema=shown,
        operation_id="get_model",
        responses={
            200: {**answer("The model.", "Model"), "links": FROM_MODEL},
            **refusals("401", "404", "503"),
        },
    )
    async def get_model(request: Request, model_id: str) -> Response:
        """One model; its id may hold `:` and `/`."""
        caller = await authenticator.caller(request.headers.raw, address_of(request.scope))
        return _json(models.entry(caller, model_id))

    return routes


def hidden_tiers(request: Request) -> frozenset[str]:
    """Raises InvalidRequest for anything but true and false, in any case; an empty value too."""
    hidden = set()
    for name, tier in FILTERS.items():
        for text in request.query_params.getlist(name):
            allowed = BOOLEANS.get(text.lower())
            if allowed is None:
                raise InvalidRequest(f"'{name}' must be 'true' or 'false'.", param=name)
            if not allowed:
                hidden.add(tier)
    return frozenset(hidden)


def _may_see(caller: Caller, shown: Shown) -> bool:
    return caller.allowed_models is None or shown.name in caller.allowed_models


def _per_token(per_million: Decimal) -> msgspec.Raw:
    return as_json((per_million / MILLION).normalize())


def _json(document: dict[str, Any]) -> Response:
    return Response(_encode(document), media_type="application/json")
