"""What users have spent, summed from their spend rows."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from typing_extensions import override

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.spend import FOLDED
from shared.money import ZERO
from shared.spend import Spender, SpendReader

_EPOCH = datetime.fromtimestamp(0, UTC)

# Parallel arrays, because each user's spend has a beginning of its own.
_SUMS = f"""
SELECT user, sum(cost_usd) FROM {FOLDED}
WHERE tenant = {{tenant:String}} AND billed AND has({{users:Array(String)}}, user)
  AND toUnixTimestamp64Micro(created_at)
      >= {{since:Array(Int64)}}[indexOf({{users:Array(String)}}, user)]
GROUP BY user
"""  # noqa: S608 - a constant; values are parameters

_OF_KEY = f"""
SELECT sum(cost_usd) FROM {FOLDED}
WHERE key_id = {{key:String}} AND billed
  AND toUnixTimestamp64Micro(created_at) >= {{since:Int64}}
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

    @override
    async def spent_by_key(self, key_id: str, since: datetime | None) -> Decimal:
        parameters = {"key": key_id, "since": _micros(since)}
        [(total,)] = await self._clickhouse.query(_OF_KEY, parameters)
        return Decimal(total or 0)


def _parameters(tenant: str, spenders: Sequence[Spender]) -> dict[str, object]:
    return {
        "tenant": tenant,
        "users": [one.user for one in spenders],
        "since": [_micros(one.since) for one in spenders],
    }


def _micros(since: datetime | None) -> int:
    return 0 if since is None else (since - _EPOCH) // timedelta(microseconds=1)
