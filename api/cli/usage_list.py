"""`gateway usage list`: the ledger's entries, one for each request, as `GET /v1/usage` has them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import typer
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.store import CLOCK, checked, fail, in_store
from api.routes.usage import Usage
from api.schemas.bodies import Moment
from api.spreadsheet import csv_text
from api.usage_entry import FIELDS, to_json
from api.usage_query import asked
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.usage import UsageTable
from shared.clickhouse.usage_filter import UsageFilter
from shared.clickhouse.usage_summary import UsageSummary
from shared.postgres.engine import Engine
from shared.postgres.keys import KeyStore
from shared.postgres.users import UserStore

PAGE = 1000
Filter = Annotated[str | None, typer.Option(help="Of this one alone.")]


class Range(BaseModel):
    """The time a command looks at."""

    start: Moment | None = Field(default=None, alias="from")
    end: Moment | None = Field(default=None, alias="to")


def list_usage(
    *,
    user: Filter = None,
    key: Annotated[str | None, typer.Option(help="Of a key: its id or its public id.")] = None,
    model: Filter = None,
    provider: Filter = None,
    tier: Filter = None,
    endpoint: Annotated[str | None, typer.Option(help="As `/v1/chat/completions`.")] = None,
    status: Annotated[
        Literal["success", "error"] | None, typer.Option(help="How it ended.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="`name=value`.")] = None,
    tenant: Filter = None,
    start: Annotated[
        str | None, typer.Option("--from", help="An ISO 8601 time; UTC without a zone.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="The same; exclusive.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    form: Annotated[
        Literal["json", "csv"], typer.Option("--format", help="A list, or lines for a spreadsheet.")
    ] = "json",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List what was asked for, newest first: one entry for each request."""
    if tag is not None and not tag.partition("=")[1]:
        fail("tag: must be `name=value`")
    moments = checked(Range, **{"from": start, "to": end})
    wanted = asked(
        start_date=moments.start, end_date=moments.end, api_key_id=key, model=model,
        provider=provider, tier=tier, endpoint=endpoint, status=status, tag=tag, tenant=tenant,
    )  # fmt: skip
    clickhouse = settings_for(data_dir).clickhouse_url.get_secret_value()

    async def ask(engine: Engine) -> list[dict[str, Any]]:
        return await _documents(engine, clickhouse, replace(wanted, user=user), limit)

    try:
        found = in_store(data_dir, ask)
    except RequestValidationError as error:
        fail(str(error.errors()[0]["msg"]))
    typer.echo(_text(found, form))


async def _documents(
    engine: Engine, clickhouse_url: str, wanted: UsageFilter, limit: int
) -> list[dict[str, Any]]:
    store = ClickHouse(clickhouse_url)
    usage = Usage(
        table=UsageTable(store),
        summary=UsageSummary(store),
        users=UserStore(engine, CLOCK),
        keys=KeyStore(engine, CLOCK),
    )
    found: list[dict[str, Any]] = []
    try:
        page = await usage.page(wanted, limit=min(limit, PAGE))
        found += await usage.documents(page.entries)
        while page.next is not None and len(found) < limit:
            page = await usage.page(wanted, limit=min(limit - len(found), PAGE), after=page.next)
            found += await usage.documents(page.entries)
    finally:
        await store.close()
    return found


def _text(found: Sequence[dict[str, Any]], form: str) -> str:
    if form == "csv":
        return csv_text([FIELDS, *(list(one.values()) for one in found)]).rstrip("\r\n")
    return to_json(found).decode()
