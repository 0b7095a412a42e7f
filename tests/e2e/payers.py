"""Users with budgets: made, and asked what they have spent and hold, by the counters and by the ledger."""

import time
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import redis

from shared.account import RateLimits, user_account
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.spend import FOLDED
from shared.valkey.keys import ShardKeys
from tests.e2e.started import StartedGateway


class Manager:
    """Makes users with budgets, and reads what they have spent."""

    def __init__(self, gateway: StartedGateway) -> None:
        self._url = gateway.ready.base_url
        self._headers = {"authorization": f"Bearer {gateway.ready.master_key}"}

    def ask(self, method: str, path: str, **body: Any) -> Any:
        url, headers = self._url + path, self._headers
        answer = httpx.request(method, url, headers=headers, json=body or None, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json(parse_float=Decimal)

    def user(self, name: str, most: Decimal, seconds: int | None = None, **key: Any) -> str:
        """Returns a key of a new user."""
        terms = {"max_budget": float(most), "budget_duration_sec": seconds}
        budget = self.ask("POST", "/v1/budgets", **terms)
        assert budget["max_budget"] == most, "no float may have changed it"
        self.ask("POST", "/v1/users", user_id=name, budget_id=budget["budget_id"])
        made: str = self.ask("POST", "/v1/keys", user_id=name, **key)["key"]
        return made

    def limit(self, name: str, most: Decimal) -> None:
        """Changes the budget a user has; waits until every process knows."""
        budget = self.ask("GET", f"/v1/users/{name}")["budget_id"]
        self.ask("PATCH", f"/v1/budgets/{budget}", max_budget=float(most))
        time.sleep(1.2)

    def spent(self, name: str) -> Decimal:
        return Decimal(self.ask("GET", f"/v1/users/{name}")["spend"])


async def billed(gateway: StartedGateway, user: str) -> list[tuple[datetime, Decimal]]:
    """When each of a user's billed calls was admitted, and what it cost."""
    clickhouse = ClickHouse(gateway.ready.clickhouse_url)
    try:
        return [(at, cost) for at, cost in await clickhouse.query(_BILLED, {"user": user})]
    finally:
        await clickhouse.close()


_BILLED = f"SELECT created_at, cost_usd FROM {FOLDED} WHERE user = {{user:String}} AND billed"  # noqa: S608


def held(gateway: StartedGateway, user: str) -> int:
    """In nano-dollars."""
    return int(account(gateway, user).get("held", 0))


def account(gateway: StartedGateway, user: str) -> dict[str, str]:
    """A user's, as Valkey has it."""
    suffix = user_account("default", user, RateLimits()).suffix
    with redis.Redis.from_url(gateway.ready.valkey_url, decode_responses=True) as client:
        found: dict[str, str] = client.hgetall(ShardKeys(0).account(suffix))
        return found
