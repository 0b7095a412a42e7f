"""What users have spent: the sum of their spend rows, also of those that are no longer kept."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from typing_extensions import override

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.rollups import HOURLY
from shared.clickhouse.spend import FOLDED
from shared.money import ZERO
from shared.spend import Spender, SpendReader

_EPOCH = datetime.fromtimestamp(0, UTC)

# Parallel arrays, because each user's spend has a beginning of its own.
_USERS = """tenant = {tenant:String} AND has({users:Array(String)}, user)"""
_SINCE = "{since:Array(Int64)}[indexOf({users:Array(String)}, user)]"

# Costs only add up, so of an hour's two sums the larger is the whole one: that of the rows until the
# hour is rolled up, that of the hourly table once rows are no longer kept. Of the hour in which a
# user's spend begins the rows alone tell what came after.
_SUMS = f"""
SELECT user, sum(greatest(of_rows, of_hour)) FROM (
  SELECT user, hour, sum(of_rows) AS of_rows, sum(of_hour) AS of_hour FROM (
    SELECT user, toStartOfHour(created_at) AS hour, cost_usd AS of_rows,
      toDecimal128(0, 9) AS of_hour FROM {FOLDED}
    WHERE {_USERS} AND billed AND toUnixTimestamp64Micro(created_at) >= {_SINCE}
    UNION ALL
    SELECT user, hour, toDecimal128(0, 9), cost_usd FROM {HOURLY} FINAL
    WHERE {_USERS} AND toInt64(toUnixTimestamp(hour)) * 1000000 >= {_SINCE}
  ) GROUP BY user, hour
) GROUP BY user
"""  # noqa: S608 - a constant; values are parameters


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
            for user, total in await self._clickhouse.query(_SUMS, _parameters(tenant, of_tenant)):
                sums[tenant, user] = total
        return [sums.get((one.tenant, one.user), ZERO) for one in spenders]


def _parameters(tenant: str, spenders: Sequence[Spender]) -> dict[str, object]:
    return {
        "tenant": tenant,
        "users": [one.user for one in spenders],
        "since": [_micros(one.since) for one in spenders],
    }


def _micros(since: datetime | None) -> int:
    return 0 if since is None else (since - _EPOCH) // timedelta(microseconds=1)
