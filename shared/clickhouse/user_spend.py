"""What users and keys have spent: the sum of their rows, also of those that are no longer kept."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from typing_extensions import override

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.rollups import HOURLY
from shared.clickhouse.spend import FOLDED
from shared.money import ZERO
from shared.spend import KeySpender, Spender, SpendReader

_EPOCH = datetime.fromtimestamp(0, UTC)


def _sums(owner: str, whose: str, since: str) -> str:
    """By `owner`, a column.

    Costs only add up, so of an hour's two sums the larger is the whole one: that of the rows until
    the hour is rolled up, that of the hourly table once rows are no longer kept. Of the hour in which
    spend begins the rows alone tell what came after.
    """
    return f"""
SELECT {owner}, sum(greatest(of_rows, of_hour)) FROM (
  SELECT {owner}, hour, sum(of_rows) AS of_rows, sum(of_hour) AS of_hour FROM (
    SELECT {owner}, toStartOfHour(created_at) AS hour, cost_usd AS of_rows,
      toDecimal128(0, 9) AS of_hour FROM {FOLDED}
    WHERE {whose} AND billed AND toUnixTimestamp64Micro(created_at) >= {since}
    UNION ALL
    SELECT {owner}, hour, toDecimal128(0, 9), cost_usd FROM {HOURLY} FINAL
    WHERE {whose} AND toInt64(toUnixTimestamp(hour)) * 1000000 >= {since}
  ) GROUP BY {owner}, hour
) GROUP BY {owner}
"""  # noqa: S608 - columns and parameters by name; values are parameters


_OF_USERS = _sums(
    "user",
    "tenant = {tenant:String} AND has({users:Array(String)}, user)",
    # Parallel arrays, because each user's spend has a beginning of its own.
    "{since:Array(Int64)}[indexOf({users:Array(String)}, user)]",
)
_OF_KEYS = _sums(
    "key_id",
    "has({keys:Array(String)}, key_id)",
    "{since:Array(Int64)}[indexOf({keys:Array(String)}, key_id)]",
)


class UserSpend(SpendReader):
    """Reads ClickHouse: rows that wait in Valkey are not counted yet. Raises ClickHouseAway."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    @override
    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        tenants: defaultdict[str, list[Spender]] = defaultdict(list)
        for spender in spenders:
            tenants[spender.tenant].append(spender)
        sums: dict[tuple[str, str], Decimal] = {}
        for tenant, of_tenant in tenants.items():
            for user, total in await self._clickhouse.query(
                _OF_USERS, _parameters(tenant, of_tenant)
            ):
                sums[tenant, user] = total
        return [sums.get((one.tenant, one.user), ZERO) for one in spenders]

    @override
    async def spent_by_keys(self, keys: Sequence[KeySpender]) -> list[Decimal]:
        if not keys:
            return []
        parameters = {
            "keys": [one.key_id for one in keys],
            "since": [_micros(one.since) for one in keys],
        }
        sums = dict(await self._clickhouse.query(_OF_KEYS, parameters))
        return [sums.get(one.key_id, ZERO) for one in keys]


def _parameters(tenant: str, spenders: Sequence[Spender]) -> dict[str, object]:
    return {
        "tenant": tenant,
        "users": [one.user for one in spenders],
        "since": [_micros(one.since) for one in spenders],
    }


def _micros(since: datetime | None) -> int:
    return 0 if since is None else (since - _EPOCH) // timedelta(microseconds=1)
