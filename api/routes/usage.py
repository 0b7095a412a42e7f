"""GET /v1/usage and what belongs to it: the ledger as entries, as sums, and as files."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Protocol
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import Authenticator
from api.ledger_read import reading_ledger
from api.schemas.errors import refusals
from api.schemas.usage import ENTRIES, NEXT, SUMMARY
from api.spreadsheet import Cell, csv_text
from api.usage_entry import FIELDS, SUMMARY_FIELDS, entry_document, line_document, to_json
from api.usage_query import Format, Limit, Skip, Text, asked, cursor_of, wrong
from shared.clickhouse.usage import Cursor, Entry, Page, UsageTable
from shared.clickhouse.usage_filter import UsageFilter
from shared.clickhouse.usage_summary import GROUPS, TAG_PREFIX, UsageSummary
from shared.errors import NotFound

EXPORT_PAGE = 1000
"""Rows of a file that are held at a time."""
MAX_LINES = 10_000
MAX_SKIP = 1_000_000_000
GROUP_PATTERN = f"^({'|'.join(GROUPS)}|{TAG_PREFIX}.+)$"

Asked = Annotated[UsageFilter, Depends(asked)]
CursorText = Annotated[str | None, Query(description=f"An earlier page's `{NEXT}`.")]


class KnowsUsers(Protocol):
    async def was_known(self, user_id: str) -> bool: ...


class KnowsKeys(Protocol):
    async def ids_of(self, public_ids: Collection[str]) -> Mapping[str, UUID]: ...

    async def public_id_of(self, key_id: str) -> str: ...


class Usage:
    """What the routes read, apart from them. Raises GatewayError and RequestValidationError."""

    def __init__(
        self, *, table: UsageTable, summary: UsageSummary, users: KnowsUsers, keys: KnowsKeys
    ) -> None:
        self._table = table
        self._summary = summary
        self._users = users
        self._keys = keys

    async def page(
        self, wanted: UsageFilter, *, limit: int, skip: int = 0, after: Cursor | None = None
    ) -> Page:
        if skip and wanted.looks_at_attempts:
            raise wrong("skip", "with model, provider or status go by cursor")
        async with reading_ledger():
            wanted = await self._by_public_id(wanted)
            return await self._table.page(wanted, limit=limit, skip=skip, after=after)

    async def documents(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """With the ids that their keys have elsewhere in the API; rows have public ids alone."""
        used = {entry.attempt.key_id for entry in entries if entry.attempt.key_id}
        async with reading_ledger():
            ids = await self._keys.ids_of(used) if used else {}
        return [entry_document(entry, ids) for entry in entries]

    async def _by_public_id(self, wanted: UsageFilter) -> UsageFilter:
        """A key may be asked for by either of its ids."""
        if wanted.key_id is None:
            return wanted
        return replace(wanted, key_id=await self._keys.public_id_of(wanted.key_id))

    async def lines(
        self, wanted: UsageFilter, *, by: str, limit: int, skip: int
    ) -> list[dict[str, Any]]:
        async with reading_ledger():
            wanted = await self._by_public_id(wanted)
            found = await self._summary.lines(wanted, by=by, limit=limit, skip=skip)
        return [line_document(line, by=by) for line in found]

    async def require_user(self, user_id: str) -> None:
        """Deleted users were known, and so is whoever has used something. Raises NotFound."""
        async with reading_ledger():
            if await self._users.was_known(user_id):
                return
        if not (await self.page(UsageFilter(user=user_id), limit=1)).entries:
            raise NotFound(f"User with id '{user_id}' not found", code="user_not_found")


MASTER: dict[str, Any] = {"security": [{"master": []}]}


def router(usage: Usage, authenticator: Authenticator, prefix: str) -> APIRouter:
    """`prefix` is `/v1` or its other name."""

    def master(request: Request) -> None:
        authenticator.require_master(request.headers.raw)

    routes = APIRouter(
        prefix=prefix,
        tags=["usage"],
        dependencies=[Depends(master)],  # before the query is looked at: a stranger learns nothing
        include_in_schema=prefix == "/v1",
        responses=refusals("400", "401", "422", "503", "504"),
    )

    @routes.get("/usage", operation_id="list_usage", openapi_extra=MASTER, responses={200: ENTRIES})
    async def list_usage(
        wanted: Asked,
        user_id: Text = None,
        skip: Skip = 0,
        limit: Limit = 100,
        cursor: CursorText = None,
        format: Format = "json",
    ) -> Response:
        """What was asked for, newest first: one entry per request."""
        wanted = replace(wanted, user=user_id)
        return await _entries(usage, wanted, skip, limit, cursor, format)

    @routes.get(
        "/users/{user_id:path}/usage",
        operation_id="list_user_usage",
        openapi_extra=MASTER,
        responses={200: ENTRIES, **refusals("404")},
    )
    async def list_user_usage(
        user_id: str,
        wanted: Asked,
        skip: Skip = 0,
        limit: Limit = 100,
        cursor: CursorText = None,
        format: Format = "json",
    ) -> Response:
        """The same of one user, deleted ones too."""
        await usage.require_user(user_id)
        wanted = replace(wanted, user=user_id)
        return await _entries(usage, wanted, skip, limit, cursor, format)

    @routes.get(
        "/usage/summary",
        operation_id="summarize_usage",
        openapi_extra=MASTER,
        responses={200: SUMMARY},
    )
    async def summarize_usage(
        wanted: Asked,
        user_id: Text = None,
        group_by: Annotated[str, Query(pattern=GROUP_PATTERN, max_length=200)] = "model",
        skip: Annotated[int, Query(ge=0, le=MAX_SKIP)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 100,
        format: Format = "json",
    ) -> Response:
        """Sums by something: what cost most first, days and hours in their order."""
        wanted = replace(wanted, user=user_id)
        lines = await usage.lines(wanted, by=group_by, limit=limit, skip=skip)
        if format == "csv":
            rows = [[line[name] for name in SUMMARY_FIELDS] for line in lines]
            return _file(f"usage-by-{group_by.partition(':')[0]}", _once(rows), SUMMARY_FIELDS)
        body = b'{"object":"list","group_by":%b,"data":%b}'
        return _json(body % (msgspec.json.encode(group_by), to_json(lines)))

    return routes


async def _entries(
    usage: Usage, wanted: UsageFilter, skip: int, limit: int, cursor: str | None, form: str
) -> Response:
    is_file = form == "csv"
    after = cursor_of(cursor)
    # Before the answer begins: what fails here can still be told.
    page = await usage.page(wanted, limit=EXPORT_PAGE if is_file else limit, skip=skip, after=after)
    if is_file:
        return _file("usage", _every_page(usage, wanted, page), FIELDS)
    answer = _json(to_json(await usage.documents(page.entries)))
    if page.next is not None:
        answer.headers[NEXT] = str(page.next)
    return answer


async def _every_page(
    usage: Usage, wanted: UsageFilter, page: Page
) -> AsyncIterator[Sequence[Sequence[Cell]]]:
    """One page is held at a time: the next is read when the client has taken this one."""
    while True:
        yield [list(document.values()) for document in await usage.documents(page.entries)]
        if page.next is None:
            return
        page = await usage.page(wanted, limit=EXPORT_PAGE, after=page.next)


async def _once(
    rows: Sequence[Sequence[Cell]],
) -> AsyncIterator[Sequence[Sequence[Cell]]]:
    yield rows


def _file(
    name: str, pages: AsyncIterator[Sequence[Sequence[Cell]]], head: Sequence[str]
) -> Response:
    async def lines() -> AsyncIterator[str]:
        yield csv_text([head])
        async for page in pages:
            yield csv_text(page)

    disposition = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(lines(), media_type="text/csv", headers=disposition)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
