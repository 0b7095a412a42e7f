"""What readers of the Scanner ask for, in every combination that matters: a part of `bench usage`.

Each round asks for another model, user and application, so that nothing is remembered from the last.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from itertools import count
from uuid import UUID

from api.routes.scanner import MAX_PAGE, PAGE_SIZE
from shared.clickhouse.scanner import ScannerTable
from shared.clickhouse.scanner_filter import Owner, ScannerFilter
from shared.clickhouse.scanner_statistics import GRAINS, ScannerStatistics
from shared.clickhouse.usage import Cursor
from shared.ids import dashed

Questions = Mapping[str, Callable[[], Awaitable[object]]]

DEEPEST = (MAX_PAGE - 1) * PAGE_SIZE


def _wanted(at: int) -> dict[str, ScannerFilter]:
    model, app = f"model-{at % 20}", f"app-{at % 30}"
    creator = ("openai", "Qwen", "deepseek-ai", "zai-org", "anthropic")[at % 5]
    mine, nobody = Owner("default", f"user-{at}"), Owner("default", f"nobody-{at}")
    return {
        "everything": ScannerFilter(),
        "completed": ScannerFilter(status="completed"),
        "failed": ScannerFilter(status="failed"),
        "cancelled": ScannerFilter(status="cancelled"),
        "a model": ScannerFilter(model=model),
        "a creator": ScannerFilter(creator=creator),
        "an application": ScannerFilter(application=app),
        "a part of a name": ScannerFilter(text=f"L-{at % 10}"),
        "mine": ScannerFilter(owner=mine),
        "model, failed": ScannerFilter(model=model, status="failed"),
        "model, cancelled": ScannerFilter(model=model, status="cancelled"),
        "model, application": ScannerFilter(model=model, application=app),
        "model, application, failed": ScannerFilter(model=model, application=app, status="failed"),
        "creator, application, cancelled": ScannerFilter(
            creator=creator, application=app, status="cancelled"
        ),
        "mine, failed": ScannerFilter(owner=mine, status="failed"),
        "mine, model": ScannerFilter(owner=mine, model=model),
        "mine, application, model, failed": ScannerFilter(
            owner=mine, application=app, model=model, status="failed"
        ),
        "a model that is not there": ScannerFilter(model=f"none-{at}"),
        "an application that is not there": ScannerFilter(application=f"none-{at}"),
        "a name that is not there": ScannerFilter(text=f"none-{at}"),
        "mine, and nothing is": ScannerFilter(owner=nobody),
    }


def pages(table: ScannerTable) -> Questions:
    """The first page, and the deepest that is asked for by number."""
    asked: dict[str, Callable[[], Awaitable[object]]] = {}
    for name in _wanted(0):
        for which, skip, first in (("", 0, 0), (f", page {MAX_PAGE}", DEEPEST, 10)):
            asked[f"scanner: {name}{which}"] = partial(_page, table, name, skip, count(first))
    return asked


async def _page(table: ScannerTable, name: str, skip: int, rounds: "count[int]") -> None:
    await table.page(_wanted(next(rounds))[name], limit=PAGE_SIZE, skip=skip)


async def by_id(table: ScannerTable) -> Questions:
    """Of requests here and there."""
    ids: list[UUID] = []
    after: Cursor | None = None
    while len(ids) < PAGE_SIZE:
        page = await table.page(ScannerFilter(), limit=1, skip=7_777, after=after)
        ids += [one.request_id for one in page.requests]
        after = page.next
    rounds = count()

    async def whole() -> None:
        await table.find(ids[next(rounds) % len(ids)])

    async def searched(length: int) -> None:
        text = dashed(ids[next(rounds) % len(ids)].hex)[:length]
        await table.page(ScannerFilter(text=text), limit=PAGE_SIZE)

    return {
        "scanner: a request": whole,
        "scanner: an id": partial(searched, 36),
        "scanner: the beginning of an id": partial(searched, 8),
    }


def statistics(reader: ScannerStatistics, end: datetime) -> Questions:
    return {
        f"scanner: statistics of {window}": partial(reader.read, window, now=end)
        for window in GRAINS
    }
