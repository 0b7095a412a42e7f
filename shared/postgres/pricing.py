"""Prices in Postgres: for each model key, one row for each time from which on it is charged."""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Delete,
    Row,
    Select,
    Text,
    cast,
    delete,
    func,
    literal_column,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.clock import Clock, utc
from shared.errors import NotFound
from shared.postgres.audit import Actor, record
from shared.postgres.tables import pricing
from shared.price import Price, SeedPrice, split_key
from shared.spend import encode_price


class PriceInfo(msgspec.Struct, frozen=True, kw_only=True):
    model_key: str
    effective_at: datetime
    price: Price
    created_at: datetime
    updated_at: datetime

    @property
    def object_id(self) -> str:
        return self.model_key


class PriceVersion(NamedTuple):
    """Equal while nothing has changed.

    By the transactions that wrote the rows, for `updated_at` is when a transaction began: one that
    was committed late could be older than one that was read already.
    """

    rows: int
    writes: int


class DatedPrice(NamedTuple):
    model_key: str
    effective_at: float
    """Epoch seconds."""
    price: Price
    created_at: float


class PriceStore:
    """Every method is one transaction, and raises one of STORE_ERRORS when Postgres is away.

    Reads and deletes take a key in either form, `provider:model` or `provider/model`: the first of
    the key as given, with a colon, with a slash, that has rows is meant.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def put(
        self, model_key: str, price: Price, actor: Actor, *, effective_at: datetime | None = None
    ) -> PriceInfo:
        """Adds a row, or changes the one of this key and time. Now, where no time is given."""
        at = effective_at or utc(self._clock.now())
        present = _newest_first(model_key).where(pricing.c.effective_at == at)
        async with self._engine.begin() as connection:
            before = await _one(connection, present.with_for_update())
            values = _columns(price)
            made = (
                insert(pricing)
                .values(model_key=model_key, effective_at=at, **values)
                .on_conflict_do_update(
                    index_elements=[pricing.c.model_key, pricing.c.effective_at],
                    set_={**values, "updated_at": func.now()},
                )
                .returning(*_INFO)
            )
            after = _info((await connection.execute(made)).one())
            await record(connection, actor, "pricing.put", self._clock, before=before, after=after)
            return after

    async def seed(self, prices: Mapping[str, SeedPrice], actor: Actor) -> list[str]:
        """Adds a row for each key that has none; the keys that it was for. May be repeated."""
        async with self._engine.begin() as connection:
            if prices:  # two who seed at once: the second finds the rows of the first
                await connection.execute(_LOCK)
            missing = {
                key: seed for key, seed in prices.items() if not await _has_rows(connection, key)
            }
            for key, seed in missing.items():
                at = seed.effective_at or utc(self._clock.now())
                values = {"model_key": key, "effective_at": at, **_columns(seed.price)}
                made = insert(pricing).values(values).returning(*_INFO)
                after = _info((await connection.execute(made)).one())
                await record(connection, actor, "pricing.put", self._clock, after=after)
        return list(missing)

    async def list_prices(self, *, skip: int = 0, limit: int = 100) -> Sequence[PriceInfo]:
        """By key, then the newest first."""
        query = select(*_INFO).order_by(
            pricing.c.model_key.collate("C"), pricing.c.effective_at.desc()
        )
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.offset(skip).limit(limit))
            return [_info(row) for row in rows]

    async def in_force(self, model_key: str, *, as_of: datetime | None = None) -> PriceInfo:
        """The newest row that is not later than a time, now if none is given. Raises NotFound."""
        at = as_of or utc(self._clock.now())
        async with self._engine.connect() as connection:
            for key in forms(model_key):
                found = await _one(
                    connection, _newest_first(key).where(pricing.c.effective_at <= at).limit(1)
                )
                if found is not None:
                    return found
        raise _no_price(model_key)

    async def version(self) -> PriceVersion:
        """What a change of any price changes."""
        async with self._engine.connect() as connection:
            rows, writes = (await connection.execute(_VERSION)).one()
        return PriceVersion(rows, int(writes))

    async def charged_from(self, at: datetime) -> list[DatedPrice]:
        """For each key what is in force at a time and what comes later, in any order."""
        columns = [pricing.c[name] for name in DatedPrice._fields]
        in_force = (
            select(*columns)
            .ext(distinct_on(pricing.c.model_key))
            .where(pricing.c.effective_at <= at)
            .order_by(pricing.c.model_key, pricing.c.effective_at.desc())
        )
        query = union_all(
            in_force.subquery().select(), select(*columns).where(pricing.c.effective_at > at)
        )
        async with self._engine.connect() as connection:
            return [
                DatedPrice(key, start.timestamp(), _decode_price(price), made.timestamp())
                for key, start, price, made in await connection.execute(query)
            ]

    async def history(self, model_key: str) -> Sequence[PriceInfo]:
        """All rows of a key, newest first. Raises NotFound."""
        async with self._engine.connect() as connection:
            for key in forms(model_key):
                rows = [_info(row) for row in await connection.execute(_newest_first(key))]
                if rows:
                    return rows
        raise _no_price(model_key)

    async def delete(
        self, model_key: str, actor: Actor, *, effective_at: datetime | None = None
    ) -> None:
        """One row, or all of a key. Raises NotFound."""
        async with self._engine.begin() as connection:
            for key in forms(model_key):
                gone = await connection.execute(_deletion(key, effective_at).returning(*_INFO))
                infos = [_info(row) for row in gone]
                for info in infos:
                    await record(connection, actor, "pricing.delete", self._clock, before=info)
                if infos:
                    return
        raise _no_price(model_key, effective_at)


def forms(model_key: str) -> list[str]:
    """The key as given, and its forms with a colon and with a slash, each once."""
    found = [model_key]
    with contextlib.suppress(ValueError):
        provider, model = split_key(model_key)
        found += [f"{provider}:{model}", f"{provider}/{model}"]
    return list(dict.fromkeys(found))


def _newest_first(model_key: str) -> Select[Any]:
    query = select(*_INFO).where(pricing.c.model_key == model_key)
    return query.order_by(pricing.c.effective_at.desc())


def _deletion(model_key: str, effective_at: datetime | None) -> Delete:
    statement = delete(pricing).where(pricing.c.model_key == model_key)
    if effective_at is not None:
        statement = statement.where(pricing.c.effective_at == effective_at)
    return statement


async def _has_rows(connection: AsyncConnection, model_key: str) -> bool:
    query = select(pricing.c.model_key).where(pricing.c.model_key.in_(forms(model_key))).limit(1)
    return (await connection.execute(query)).one_or_none() is not None


async def _one(connection: AsyncConnection, query: Select[Any]) -> PriceInfo | None:
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _info(row)


def _no_price(model_key: str, effective_at: datetime | None = None) -> NotFound:
    time = "" if effective_at is None else f" with effective_at {effective_at.isoformat()}"
    return NotFound(f"Pricing for model '{model_key}'{time} not found", code="pricing_not_found")


_INFO = [pricing.c[name] for name in PriceInfo.__struct_fields__]
_LOCK = text("LOCK TABLE pricing IN SHARE ROW EXCLUSIVE MODE")
_WRITER = cast(cast(literal_column("xmin"), Text), BigInteger)
_VERSION = select(
    func.count(), func.coalesce(func.sum(func.hashint8extended(_WRITER, 0)), 0)
).select_from(pricing)
_decode_price = msgspec.json.Decoder(Price).decode


def _columns(price: Price) -> dict[str, Any]:
    return {
        "input_price_per_million": price.input,
        "output_price_per_million": price.output,
        "price": encode_price(price).decode(),
    }


def _info(row: Row[Any]) -> PriceInfo:
    return PriceInfo(**{**row._mapping, "price": _decode_price(row.price)})
