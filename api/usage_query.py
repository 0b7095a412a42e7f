"""The query of a request about usage: which part of the ledger is meant."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query
from fastapi.exceptions import RequestValidationError

from api.usage_entry import endpoint_of
from shared.clickhouse.usage import Cursor
from shared.clickhouse.usage_filter import END_OF_TIME, EPOCH, UsageFilter

Format = Annotated[Literal["json", "csv"], Query(description="`csv`: a file of everything.")]
Skip = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Text = Annotated[str | None, Query()]
Moment = Annotated[
    datetime | None,
    Query(description="ISO 8601, without a zone UTC; or seconds since 1970. Of the request."),
]


def asked(
    *,
    start_date: Moment = None,
    end_date: Moment = None,
    api_key_id: Text = None,
    model: Text = None,
    provider: Text = None,
    tier: Text = None,
    endpoint: Annotated[str | None, Query(description="As `/v1/chat/completions`.")] = None,
    status: Annotated[Literal["success", "error"] | None, Query()] = None,
    tag: Annotated[str | None, Query(pattern="^[^=]+=", description="`name=value`.")] = None,
    tenant: Annotated[str | None, Query(description="All of them otherwise.")] = None,
) -> UsageFilter:
    """Whose usage is meant is said elsewhere: in the query or in the path."""
    name, _, value = (tag or "").partition("=")
    return UsageFilter(
        since=_within(start_date, EPOCH),
        until=_within(end_date, END_OF_TIME),
        key_id=api_key_id,
        model=model,
        provider=provider,
        tier=tier,
        endpoint=None if endpoint is None else endpoint_of(endpoint),
        status=status,
        tag=(name, value) if tag else None,
        tenant=tenant,
    )


def cursor_of(text: str | None) -> Cursor | None:
    """Raises RequestValidationError."""
    try:
        return None if text is None else Cursor.read(text)
    except ValueError as error:
        raise wrong("cursor", "not a cursor of an earlier page") from error


def wrong(parameter: str, message: str) -> RequestValidationError:
    """422, in the words of Otari's validation."""
    fault = {"type": "value_error", "loc": ("query", parameter), "msg": f"Value error, {message}"}
    return RequestValidationError([fault])


def _within(moment: datetime | None, default: datetime) -> datetime:
    """Cut to the time there can be rows of; years 1 and 9999 must not overflow a zone's shift."""
    if moment is None:
        return default
    if not EPOCH.year < moment.year < END_OF_TIME.year:
        return EPOCH if moment.year <= EPOCH.year else END_OF_TIME
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
