"""A store for the length of a command, with plain words for what it refuses."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import typer
from pydantic import BaseModel, ValidationError

from api.cli.environment import settings_for
from api.counted_spend import CountedSpend
from api.schemas.bodies import Moment
from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.user_spend import UserSpend
from shared.clock import SystemClock
from shared.document import Document
from shared.errors import GatewayError, Overloaded
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import Engine
from shared.postgres.session import PostgresAway, open_postgres
from shared.settings import Settings
from shared.valkey.client import open_client
from shared.valkey.inspect import StoreAway
from shared.valkey.keys import ShardKeys, shard_of

CLOCK = SystemClock()
PAGE = 500

Found = TypeVar("Found")


class Times(BaseModel):
    """The times a command takes."""

    at: Moment | None = None


def in_store(data_dir: Path, ask: Callable[[Engine], Awaitable[Found]]) -> Found:
    """What the store answers. Ends the command with one line where it refuses."""
    settings = settings_for(data_dir)

    async def asked() -> Found:
        async with open_postgres(settings.database_url.get_secret_value(), "cli") as engine:
            return await ask(engine)

    try:
        return asyncio.run(asked())
    except (PostgresAway, GatewayError, ClickHouseAway, StoreAway) as error:
        fail(str(error))


def checked(body: type[Found], **given: Any) -> Found:
    """The body a route would take, under the same bounds; what is None was not given."""
    try:
        return body(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


async def stored_catalog(engine: Engine) -> Document:
    """The active one. Raises Overloaded."""
    catalog = await CatalogStore(engine).active()
    if catalog is None:
        raise Overloaded("no catalog is active: run `gateway release` first")
    return catalog.document


async def pages(ask: Callable[[int], Awaitable[Sequence[Found]]]) -> list[Found]:
    """Everything a list has; `ask` is given how much to skip."""
    found: list[Found] = []
    while page := await ask(len(found)):
        found += page
    return found


async def with_spend(settings: Settings, ask: Callable[[CountedSpend], Awaitable[Found]]) -> Found:
    """Raises ClickHouseAway and StoreAway."""
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value())
    shards = [ShardKeys(shard) for shard in range(settings.shards)]
    try:
        async with open_client(settings.valkey_url.get_secret_value(), name="cli") as client:
            ledger = UserSpend(clickhouse)
            return await ask(
                CountedSpend(lambda tenant: (client, shards[shard_of(tenant, len(shards))]), ledger)
            )
    except TimeoutError as error:
        raise StoreAway("Valkey: it cannot be reached") from error
    finally:
        await clickhouse.close()


def show(document: Any) -> None:
    """As the routes answer it, for people."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, under a head; columns as wide as they need to be."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def fail(message: str) -> NoReturn:
    typer.echo(f"gateway: {message}", err=True)
    raise typer.Exit(1)
