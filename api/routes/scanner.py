"""GET /v1/scanner/…: what was asked for by anybody, as metadata: requests, one request, statistics."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.auth import Authenticator, address_of
from api.ledger_read import reading_ledger
from api.middleware import HasCatalog
from api.scanner_entry import (
    encode,
    model_document,
    request_document,
    statistics_document,
    whole_document,
)
from api.schemas.errors import answer, refusals
from api.usage_query import cursor_of, wrong
from shared.caller import Caller
from shared.clickhouse.scanner import ScannerTable
from shared.clickhouse.scanner_filter import Owner, ScannerFilter, ScannerStatus
from shared.clickhouse.scanner_statistics import ScannerStatistics, Statistics, Window
from shared.clickhouse.usage import Cursor
from shared.clock import Clock, utc
from shared.errors import NotFound

PAGE_SIZE = 50
MAX_PAGE = 20
"""What comes before a page is passed over one by one; a cursor passes nothing over."""
LAST_PAGE: dict[str, Any] = {"maximum": MAX_PAGE}
PAGES = f"There are {MAX_PAGE}; go on by `cursor`."
READ_SECONDS = 10.0
READS_AT_ONCE = 4
"""Of a process: the public must not crowd out those who read usage."""
MAX_TEXT = 200
SEARCH = "A request's id or at least its first eight digits, else a part of a model's name."

Labels = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The attestation labels of requests, both by 32 hex digits; of those that have a receipt."""

Text = Annotated[str | None, Query(max_length=MAX_TEXT)]


class Scanner:
    """What the routes read, apart from them. Raises GatewayError."""

    def __init__(
        self, *, table: ScannerTable, statistics: ScannerStatistics, labels: Labels, clock: Clock
    ) -> None:
        self._table = table
        self._statistics = statistics
        self._labels = labels
        self._clock = clock
        self._reads = asyncio.Semaphore(READS_AT_ONCE)

    async def page(
        self, wanted: ScannerFilter, *, skip: int, after: Cursor | None
    ) -> tuple[list[dict[str, Any]], Cursor | None]:
        async with self._reading():
            page = await self._table.page(wanted, limit=PAGE_SIZE, skip=skip, after=after)
            labels = await self._labels_of([one.request_id for one in page.requests])
        shown = [request_document(one, labels.get(one.request_id.hex)) for one in page.requests]
        return shown, page.next

    async def request(self, request_id: UUID) -> dict[str, Any]:
        """Raises NotFound."""
        async with self._reading():
            found = await self._table.find(request_id)
            labels = await self._labels_of([request_id])
        if found is None:
            raise NotFound(f"Request '{request_id}' not found", code="request_not_found")
        return whole_document(found, labels.get(request_id.hex))

    async def statistics(self, window: Window) -> Statistics:
        async with self._reading():
            return await self._statistics.read(window, now=utc(self._clock.now()))

    async def _labels_of(self, request_ids: Sequence[UUID]) -> Mapping[str, str]:
        return await self._labels([one.hex for one in request_ids]) if request_ids else {}

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        bounded = reading_ledger(seconds=READ_SECONDS, timeout_code="scanner_timeout")
        async with bounded, self._reads:
            yield


class Reader:
    """For FastAPI's Depends: who reads, looked at before the query is. None: the public.

    Raises NotFound where the Scanner is off, NotAuthenticated and NotPermitted.
    """

    def __init__(self, authenticator: Authenticator, catalog: HasCatalog) -> None:
        self._authenticator = authenticator
        self._catalog = catalog

    async def __call__(self, request: Request) -> Caller | None:
        access = self._catalog.current.document.scanner.access
        if access == "off":
            raise NotFound("The Scanner is switched off.", code="scanner_off")
        return None if access == "public" else await self.caller(request)

    async def caller(self, request: Request) -> Caller:
        return await self._authenticator.caller(request.headers.raw, address_of(request.scope))


def router(scanner: Scanner, reader: Reader, prefix: str) -> APIRouter:
    """`prefix` is `/v1` or its other name."""
    routes = APIRouter(
        prefix=f"{prefix}/scanner",
        tags=["scanner"],
        include_in_schema=prefix == "/v1",
        responses=refusals("400", "401", "403", "404", "503", "504"),
    )
    ReadBy = Annotated[Caller | None, Depends(reader)]

    @routes.get(
        "/requests",
        operation_id="list_scanner_requests",
        responses={200: answer("Requests, newest first.", "ScannerRequests"), **refusals("422")},
    )
    async def list_requests(
        request: Request,
        caller: ReadBy,
        status: Annotated[ScannerStatus | None, Query()] = None,
        model: Text = None,
        creator: Text = None,
        application: Text = None,
        q: Annotated[str | None, Query(max_length=MAX_TEXT, description=SEARCH)] = None,
        my: Annotated[bool, Query(description="The key's own user's; needs a key.")] = False,
        page: Annotated[int, Query(ge=1, description=PAGES, json_schema_extra=LAST_PAGE)] = 1,
        cursor: Annotated[str | None, Query(description="An earlier page's `next`.")] = None,
    ) -> Response:
        """What was asked for, newest first: one entry per request, fifty to a page."""
        if my and caller is None:
            caller = await reader.caller(request)
        after = _after(page, cursor)
        wanted = ScannerFilter(
            status=status,
            model=model,
            creator=creator,
            application=application,
            text=q,
            owner=Owner(caller.tenant, caller.user) if my and caller is not None else None,
        )
        skip = (page - 1) * PAGE_SIZE
        shown, more = await scanner.page(wanted, skip=skip, after=after)
        return _json(
            {
                "object": "list",
                "data": shown,
                "page_size": PAGE_SIZE,
                "has_more": more is not None,
                "next": None if more is None else str(more),
            }
        )

    @routes.get(
        "/requests/{request_id}",
        operation_id="get_scanner_request",
        responses={200: answer("The request.", "ScannerRequest")},
        dependencies=[Depends(reader)],
    )
    async def get_request(request_id: str) -> Response:
        """One request with all of its attempts."""
        return _json(await scanner.request(_id(request_id)))

    @routes.get(
        "/statistics",
        operation_id="get_scanner_statistics",
        responses={200: answer("Sums and quantiles.", "ScannerStatistics"), **refusals("422")},
        dependencies=[Depends(reader)],
    )
    async def get_statistics(window: Annotated[Window, Query()] = "24h") -> Response:
        """Requests, tokens, spend, latency and time to first token, of all and by model."""
        return _json(statistics_document(await scanner.statistics(window), window))

    @routes.get(
        "/models",
        operation_id="list_scanner_models",
        responses={200: answer("Models.", "ScannerModels")},
        dependencies=[Depends(reader)],
    )
    async def list_models() -> Response:
        """The models that were asked for in the last thirty days, the most used first."""
        found = await scanner.statistics("30d")
        return _json({"object": "list", "data": [model_document(one) for one in found.models]})

    return routes


def _after(page: int, cursor: str | None) -> Cursor | None:
    """Raises RequestValidationError."""
    if page > MAX_PAGE:
        raise wrong("page", f"there are {MAX_PAGE} pages; go on by cursor, or filter for less")
    if cursor is not None and page > 1:
        raise wrong("cursor", "goes without page")
    return cursor_of(cursor)


def _id(text: str) -> UUID:
    """Raises NotFound."""
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound("There is no such request.", code="request_not_found") from error


def _json(document: Any) -> Response:
    return Response(encode(document), media_type="application/json")
