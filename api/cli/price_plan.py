"""Which prices would change: what a price list says beside what is charged, way by way."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from api.cli.list_price import NotTaken, PriceList
from api.cli.price_diff import Difference, differences
from api.price_book import DatedPrices
from api.providers import Secrets
from api.routes.pricing import canonical
from shared.document import Document, ModelProvider
from shared.errors import NotFound
from shared.price import UNPRICED, Price, price_key, split_key

KEPT = ("image", "second", "page", "character", "tool_call", "service_tiers")
"""Where the list does not speak of it, what is charged now stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for; None: everything."""

    at: datetime
    provider: str | None = None
    model: str | None = None
    source: str | None = None
    """The list's provider."""


class Way(NamedTuple):
    """One way to a model."""

    route: ModelProvider
    model: str
    price: Price | None
    """The catalog's."""

    @property
    def key(self) -> str:
        return price_key(self.route.provider, self.route.upstream_model)


class Change(NamedTuple):
    """A row to be written."""

    key: str
    effective_at: datetime
    price: Price
    differences: list[Difference]


def ways(document: Document, wanted: Wanted) -> list[Way]:
    """Those of the catalog's active models, each once, or the one outside it that is wanted.

    Raises InvalidRequest, NotFound.
    """
    if wanted.provider is not None and wanted.provider not in document.providers:
        raise NotFound(f"there is no provider {wanted.provider!r} in the catalog")
    every = [
        Way(route, name, route.price or model.price or UNPRICED)
        for name, model in document.models.items()
        if model.active
        for route in model.providers
        if wanted.provider in (None, route.provider)
    ]
    if wanted.model is None:
        found = every
    else:
        key = canonical(document, wanted.model)
        found = [way for way in every if key in (way.model, way.key)]
        if not found and key not in document.models:
            found = [Way(_route(key), key, None)]
        if not found or wanted.provider not in (None, found[0].route.provider):
            raise NotFound(f"{wanted.model} is not active, or not of that provider")
    first: dict[str, Way] = {}
    for way in found:
        first.setdefault(way.key, way)
    return list(first.values())


def _route(key: str) -> ModelProvider:
    provider, upstream = split_key(key)
    return ModelProvider(provider=provider, upstream_model=upstream)


class Plan:
    """Notes what it leaves out."""

    def __init__(
        self, listed: PriceList, charged: DatedPrices, document: Document, secret: Secrets
    ) -> None:
        self._listed = listed
        self._charged = charged
        self._document = document
        self._secret = secret
        self.notes: list[str] = []

    def changes(self, way: Way, wanted: Wanted) -> Iterator[Change]:
        source = wanted.source or self._source(way.route.provider)
        if source is None:
            self.notes.append(
                f"genai-prices has no list of {way.route.provider}; --from names another's"
            )
            return
        try:
            found = self._listed.find(source, way.route.upstream_model, wanted.at)
        except NotTaken as reason:
            self.notes.append(f"{way.key} is left as it is: {reason}")
            return
        self.notes += [f"{way.key}, as {found.name}: {note}" for note in found.notes]
        before, pending = None, None
        for at, price in found.prices:
            charged = self._charged.of_route(way.route, way.model, at.timestamp()) or way.price
            # What is written for a moment stays in force until another row begins.
            now = pending if pending is not None and charged == before else charged
            new = _kept(price, now)
            if differs := differences(now, new):
                yield Change(way.key, at, new, differs)
                pending = new
            before = charged

    def _source(self, name: str) -> str | None:
        provider = self._document.providers[name]
        given = self._secret(provider.base_url_env)
        url = provider.base_url if given is None else given.get_secret_value()
        return self._listed.provider(name=name, url=url)


def _kept(listed: Price, now: Price | None) -> Price:
    if now is None:
        return listed
    return replace(
        listed, **{name: getattr(now, name) for name in KEPT if not getattr(listed, name)}
    )
