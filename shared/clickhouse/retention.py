"""How long spend rows are kept: the policy, applied to their tables where it is another."""

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.scanner import REQUESTS
from shared.clickhouse.spend import TABLE

_TTL = "toDateTime(created_at) + toIntervalDay({days})"


async def keep_rows(store: ClickHouse, *, days: int) -> bool:
    """0: for good. Whether that was news. May be repeated. Raises ClickHouseAway.

    The hourly sums are kept for good, whatever is decided for rows.
    """
    news = [await _keep(store, table, days) for table in (TABLE, REQUESTS)]
    return any(news)


async def _keep(store: ClickHouse, table: str, days: int) -> bool:
    found = await store.query(
        "SELECT engine_full FROM system.tables"
        " WHERE database = currentDatabase() AND name = {table:String}",
        {"table": table},
    )
    _, has_one, present = str(found[0][0]).partition(" TTL ")
    wanted = _TTL.format(days=days)
    if days and not present.startswith(wanted):
        await store.command(f"ALTER TABLE {table} MODIFY TTL {wanted}")
        return True
    if has_one and not days:
        await store.command(f"ALTER TABLE {table} REMOVE TTL")
        return True
    return False
