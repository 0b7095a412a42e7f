"""What users and keys have spent, summed from their spend rows."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from typing_extensions import override

from shared.clickhouse.client import ClickHouse
from shared.clickhouse.spend import FOLDED
from shared.money import ZERO
from shared.spend import KeySpender, Spender, SpendReader

_EPOCH = datetime.fromtimestamp(0, UTC)

# Parallel arrays, because each user's spend has a beginning of its own.
_SUMS = f"""
SELECT user, sum(cost_usd) FROM {FOLDED}
WHERE tenant = {{tenant:String}} AND billed AND has({{users:Array(String)}}, user)
  AND toUnixTimestamp64Micro(created_at)
      >= {{since:Array(Int64)}}[indexOf({{users:Array(String)}}, user)]
GROUP BY user
"""  # noqa: S608 - a constant; values are parameters

_OF_KEYS = f"""
SELECT key_id, sum(cost_usd) FROM {FOLDED}
WHERE billed AND has({{keys:Array(String)}}, key_id)
  AND toUnixTimestamp64Micro(created_at)
      >= {{since:Array(Int64)}}[indexOf({{keys:Array(String)}}, key_id)]
GROUP BY key_id
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
        [total] = await self.spent_by_keys([KeySpender(key_id, since)])
        return total

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
