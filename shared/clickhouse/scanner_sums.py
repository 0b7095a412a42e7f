"""The Scanner's sums of requests by minute, hour and day: how an hour is computed anew.

Sums of a day are read by minutes, those of a month by hours; quantiles, whose states cost more to
merge than sums, by hours and by days.
"""

from shared.clickhouse.spend import TABLE
from shared.clickhouse.usage_lines import BETWEEN, ONE_BLOCK, TOKENS

SUMS = "scanner_sums"

KEY = ("model", "creator", "provider", "tier")
COUNTS = ("requests", "completed", "cancelled", *TOKENS, "cost_usd")
LEVELS = "0.5, 0.95"
PRECISION = 0.01
"""Of quantiles: at most so far from the true value, in parts of it, however many are merged."""

_COLUMNS = ", ".join(("grain", "at", *KEY, *COUNTS, "latency_ms", "ttft_ms", "computed_at"))
_KEY = ", ".join(KEY)

_COUNTING = (*KEY, "status", *TOKENS, "latency", "ttft")
_EXPRESSIONS = {
    "creator": "extract(upstream_model, '^([^/]*)/')",
    "latency": "(toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(created_at)) / 1000",
    "ttft": "if(streamed, ifNull(ttft_ms, -1), -1)",
}
_TAKEN = ", ".join(f"counts.{at} AS {name}" for at, name in enumerate(_COUNTING, start=1))
_REQUESTS = (
    "SELECT created_at, cost_usd,"  # noqa: S608
    f" {_TAKEN} FROM (SELECT created_at, sum(cost_usd) AS cost_usd,"
    f" argMax(({', '.join(_EXPRESSIONS.get(name, name) for name in _COUNTING)}),"
    " (billed OR status = 'completed', attempt, started_at)) AS counts"
    f" FROM {TABLE} FINAL WHERE {BETWEEN} GROUP BY tenant, created_at, request_id)"
)
"""One line per request, as `usage_lines.requests` folds them."""
_FRESH = (
    "SELECT grain, if(grain = 'hour', toStartOfHour(created_at), toStartOfMinute(created_at)) AS at,"  # noqa: S608
    f" {_KEY}, 1 AS requests, status = 'completed' AS completed, status = 'cancelled' AS cancelled,"
    f" {', '.join(TOKENS)}, cost_usd, latency, ttft"
    f" FROM ({_REQUESTS}) ARRAY JOIN ['hour', 'minute'] AS grain"
)
_FORMER = (
    f"SELECT grain, at, {_KEY}, {', '.join(f'0 AS {name}' for name in COUNTS)},"  # noqa: S608
    f" 0 AS latency, -1 AS ttft FROM {SUMS} WHERE grain IN ('hour', 'minute')"
    " AND toUnixTimestamp(at) >= intDiv({low:Int64}, 1000000)"
    " AND toUnixTimestamp(at) < intDiv({high:Int64}, 1000000)"
)
"""Lines that may not be there any more are written again, with zeros."""


def _state(value: str) -> str:
    """Of requests that were answered; minutes have none."""
    condition = f"found.completed AND found.{value} >= 0 AND grain = 'hour'"
    return f"quantilesDDStateIf({PRECISION}, {LEVELS})(toFloat64(found.{value}), {condition})"


SCANNER_HOUR = (
    f"INSERT INTO {SUMS} ({_COLUMNS})"  # noqa: S608
    f" SELECT grain, at, {_KEY}, {', '.join(f'sum(found.{name})' for name in COUNTS)},"
    f" {_state('latency')}, {_state('ttft')}, now64(3, 'UTC')"
    f" FROM ({_FRESH} UNION ALL {_FORMER}) AS found GROUP BY grain, at, {_KEY}{ONE_BLOCK}"
)
"""`low` and `high` are the hour's bounds, in microseconds."""


def _merged(value: str) -> str:
    return f"quantilesDDMergeState({PRECISION}, {LEVELS})(hours.{value})"


SCANNER_DAY = (
    f"INSERT INTO {SUMS} ({_COLUMNS})"  # noqa: S608
    " SELECT 'day', toStartOfDay(hours.at) AS day, model, '', '', '',"
    f" {', '.join(f'sum(hours.{name})' for name in COUNTS)},"
    f" {_merged('latency_ms')}, {_merged('ttft_ms')}, now64(3, 'UTC')"
    f" FROM {SUMS} AS hours FINAL WHERE grain = 'hour'"
    " AND toStartOfDay(hours.at) = toStartOfDay(toDateTime(intDiv({low:Int64}, 1000000), 'UTC'))"
    f" GROUP BY day, model{ONE_BLOCK}"
)
"""The day of an hour, from its hours, by model alone: the fewer states there are to merge. Of two that
run at once the later one began with more."""
