"""All prices of the database that are in force or will be, kept in this process."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from api.selection import Selection
from shared.catalog import Catalog
from shared.clock import Clock, utc
from shared.document import ModelProvider
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.pricing import DatedPrice, PriceVersion
from shared.price import Price, price_key

POLL_SECONDS = 0.5
"""A change is charged within a second."""
ANSWER_SECONDS = 2.0
"""Past it a poll is given up; the prices known stay."""
BACK_SECONDS = 60.0
"""A clock that is set back by less finds the price of its time."""

log = structlog.get_logger()


class PriceReader(Protocol):
    """Raises one of STORE_ERRORS."""

    async def version(self) -> PriceVersion: ...

    async def charged_from(self, at: datetime) -> list[DatedPrice]: ...


class DatedPrices:
    """Rows of the database, to be asked what is in force at a time."""

    def __init__(self, rows: Iterable[DatedPrice]) -> None:
        self._rows: dict[str, list[DatedPrice]] = {}
        """By key, the newest first."""
        for row in rows:
            self._rows.setdefault(row.model_key, []).append(row)
        for of_key in self._rows.values():
            of_key.sort(key=lambda row: row.effective_at, reverse=True)

    @property
    def is_empty(self) -> bool:
        return not self._rows

    def price(self, keys: Sequence[str], at: float) -> Price | None:
        """What the first key that has a price at a time costs then."""
        for key in keys:
            for row in self._rows.get(key, ()):
                if row.effective_at <= at:
                    return row.price
        return None

    def of_route(self, route: ModelProvider, model: str, at: float) -> Price | None:
        """The route's own price, in either form of its key, goes before its model's."""
        provider, upstream = route.provider, route.upstream_model
        return self.price((price_key(provider, upstream), f"{provider}/{upstream}", model), at)

    def newest(self) -> Iterator[DatedPrice]:
        """Of every key the last row, which may be one to come."""
        return (rows[0] for rows in self._rows.values())


class PriceBook:
    """`start()` once, then keep `run()` running."""

    def __init__(self, store: PriceReader, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._version: PriceVersion | None = None
        self._complaint = ""
        self.prices = DatedPrices(())
        """As last read. Replaced whole."""

    def price(self, keys: Sequence[str], at: float) -> Price | None:
        return self.prices.price(keys, at)

    def of(self, catalog: Catalog, selection: Selection, at: float) -> dict[str, Price]:
        """For a job's header: by `price_key`, of every route it may take."""
        if self.prices.is_empty:
            return {}
        found: dict[str, Price] = {}
        for target in selection.reachable(catalog):
            for route in target.model.providers:
                price = self.prices.of_route(route, target.name, at)
                if price is not None:
                    found[price_key(route.provider, route.upstream_model)] = price
        return found

    async def start(self) -> None:
        """Reads the prices for the first time. Raises what the store raises."""
        async with asyncio.timeout(ANSWER_SECONDS * 5):
            await self._follow()

    async def run(self) -> None:
        """Follows the database until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.poll()

    async def poll(self) -> None:
        """One look. Whatever fails, the prices known stay, and the failure is logged once."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._follow()
        except STORE_ERRORS as error:
            self._complain(type(error).__name__)
        else:
            self._complaint = ""

    async def _follow(self) -> None:
        # Asked first: what is written in between is read again by the next poll, never missed.
        version = await self._store.version()
        if version == self._version:
            return
        since = utc(self._clock.now() - BACK_SECONDS)
        self.prices = DatedPrices(await self._store.charged_from(since))
        self._version = version
        log.info("The prices are in force", action="prices_switched", rows=version.rows)

    def _complain(self, error: str) -> None:
        if error != self._complaint:
            self._complaint = error
            log.warning(
                "The prices could not be checked; the old ones stay",
                action="prices_stale",
                error=error,
            )
