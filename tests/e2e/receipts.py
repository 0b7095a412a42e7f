"""Compares what clients were answered with the rows of their requests."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal

from tests.e2e.agreement import Row
from tests.e2e.load import PANELS, Outcome, Result
from tests.e2e.mixture import DryRun


def receipt_faults(results: Iterable[Result], rows: Iterable[Row]) -> list[str]:
    by_request: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_request[row.request_id].append(row)
    return [
        f"{fault}: {result} {own}"
        for result in results
        for own in [by_request.get(result.request_id.replace("-", ""), [])]
        for fault in _faults(result, own)
    ]


def _faults(result: Result, own: list[Row]) -> Iterator[str]:
    if isinstance(result.order, DryRun):
        if own:
            yield "a dry run with rows"
        return
    if result.outcome != Outcome.COMPLETE:
        return  # what it was billed is between its rows and the provider's ledger
    answers = [row for row in own if row.status == "completed"]
    if not answers:
        yield "an answer without its row"
    if len(answers) > 1 and result.order.model not in PANELS:
        yield "an answer that was paid for more than once"
    if result.cost_usd and Decimal(result.cost_usd) != sum(row.cost_usd for row in own):
        yield "the client was told another cost"
