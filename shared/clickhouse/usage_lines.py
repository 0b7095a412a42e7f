"""Lines of sums: what the requests of folded rows add up to, in the shape of the hourly tables."""

from shared.clickhouse.spend import TABLE

DIMENSIONS = ("user", "key_id", "model", "provider", "tier", "endpoint")
TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
SUMS = ("requests", "attempts", *TOKENS, "cost_usd")

BETWEEN = (
    "created_at >= fromUnixTimestamp64Micro({low:Int64}, 'UTC')"
    " AND created_at < fromUnixTimestamp64Micro({high:Int64}, 'UTC')"
)
_COUNTING = (*DIMENSIONS, "status", *TOKENS)
_EXPRESSIONS = {"status": "if({} = 'completed', 'success', 'error')"}
_TAKEN = ", ".join(
    f"{_EXPRESSIONS.get(name, '{}').format(f'counts.{at}')} AS {name}"
    for at, name in enumerate(_COUNTING, start=1)
)
ONE_BLOCK = (
    " SETTINGS max_insert_threads = 1, min_insert_block_size_rows = 100000000,"
    " min_insert_block_size_bytes = 0"
)
"""An hour's lines are written together or not at all."""

ADDED_UP = ", ".join(f"sum({name}) AS {name}" for name in SUMS)


def requests(where: str) -> str:
    """A subquery: one line per request whose rows fit, by the attempt that counts.

    That is the one that answered, else the last, as in `usage.Attempt.rank`; costs are of all.
    `where` must take the attempts of a request together.
    """
    return (
        "SELECT tenant, hour, their_tags AS tags, attempts, cost_usd, 1 AS requests,"  # noqa: S608
        f" {_TAKEN} FROM ("
        "SELECT tenant, toStartOfHour(created_at) AS hour, any(tags) AS their_tags, count() AS attempts,"
        f" sum(cost_usd) AS cost_usd, argMax(({', '.join(_COUNTING)}),"
        " (billed OR status = 'completed', attempt, started_at)) AS counts"
        f" FROM {TABLE} FINAL WHERE {where} GROUP BY tenant, created_at, request_id)"
    )
