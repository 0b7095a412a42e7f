"""Spend as people read it: the counter where it counts, the ledger elsewhere, on a real Valkey."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from typing_extensions import override

from api.counted_spend import CountedSpend, Money
from shared.account import RateLimits, from_ms, key_suffix, user_suffix
from shared.postgres.keys import KeyInfo
from shared.postgres.users import UserInfo
from shared.spend import KeySpender, Spender, SpendReader
from shared.valkey.client import Client
from tests.integration.queue import Queue

STARTED_MS = 1_767_225_600_123
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEDGER = Decimal("0.25")
NANO = 10**9


class Ledger(SpendReader):
    """Says the same of everybody, and remembers of whom."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @override
    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        self.asked += [one.user for one in spenders]
        return [LEDGER] * len(spenders)

    @override
    async def spent_by_keys(self, keys: Sequence[KeySpender]) -> list[Decimal]:
        self.asked += [one.key_id for one in keys]
        return [LEDGER] * len(keys)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def spend(queue: Queue, ledger: Ledger) -> CountedSpend:
    return CountedSpend(lambda _tenant: (queue.client, queue.keys), ledger)


def a_user(user: str, **changes: Any) -> UserInfo:
    values: dict[str, Any] = {
        "tenant": "default", "user_id": user, "alias": None, "budget_id": uuid.UUID(int=1),
        "budget_started_at": from_ms(STARTED_MS), "next_budget_reset_at": None,
        "spend_since": None, "blocked": False, "created_at": NOW, "updated_at": NOW,
        "metadata": {}, "limits": RateLimits(),
    }  # fmt: skip
    return UserInfo(**{**values, **changes})


def a_key(public_id: str, budget_id: uuid.UUID | None) -> KeyInfo:
    return KeyInfo(
        id=uuid.uuid4(), public_id=public_id, name=None, tenant="default", user_id="u", scopes=[],
        best_lane="priority", allowed_models=None, user_field="attribute", expires_at=None,
        is_active=True, last_used_at=None, created_at=NOW, metadata={}, limits=RateLimits(),
        ip_allow_list=[], previous_valid_until=None, budget_id=budget_id,
        budget_started_at=None, next_budget_reset_at=None, attestation=None, spend_since=None,
    )  # fmt: skip


async def counter(queue: Queue, suffix: str, **fields: int) -> None:
    words = [word for pair in fields.items() for word in pair]
    await queue.client.call(b"HSET", queue.keys.account(suffix), *words)


async def test_a_counter_is_believed_before_the_ledger(queue, spend, ledger):
    loaded = {"spend": 26_000, "started": STARTED_MS, "since": 0, "held": 2 * NANO}
    await counter(queue, user_suffix("default", "u1"), **loaded)
    await counter(queue, user_suffix("default", "u2"), held=NANO)
    found = await spend.of_users([a_user("u2"), a_user("u1"), a_user("u3")])
    assert found == [
        Money(LEDGER, Decimal(1)),
        Money(Decimal("0.000026"), Decimal(2)),
        Money(LEDGER, Decimal(0)),
    ]
    assert ledger.asked == ["u2", "u3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"budget_started_at": from_ms(STARTED_MS + 1)},
        {"spend_since": from_ms(1)},
        {"budget_id": None},
    ],
    ids=["a later window", "spend counts from later on", "no budget any more"],
)
async def test_a_counter_of_another_window_is_not_believed(queue, spend, ledger, changes):
    loaded = {"spend": 26_000, "started": STARTED_MS, "since": 0, "held": NANO}
    await counter(queue, user_suffix("default", "u1"), **loaded)
    assert await spend.of_users([a_user("u1", **changes)]) == [Money(LEDGER, Decimal(1))]


async def test_a_reset_that_postgres_does_not_know_of_yet_counts(queue, spend, ledger):
    later = STARTED_MS + 60_000
    await counter(queue, user_suffix("default", "u1"), spend=5, started=later, since=later)
    assert await spend.of_users([a_user("u1")]) == [Money(Decimal("0.000000005"), Decimal(0))]


async def test_keys_have_counters_of_their_own(queue, spend, ledger):
    await counter(queue, key_suffix("k1"), spend=NANO, started=0, since=0)
    budget = uuid.UUID(int=1)
    found = await spend.of_keys([a_key("k1", budget), a_key("k2", budget), a_key("k3", None)])
    assert [money.spent for money in found] == [Decimal(1), LEDGER, LEDGER]
    assert ledger.asked == ["k2", "k3"]


async def test_while_valkey_is_away_the_ledger_is_asked_for_all(queue, ledger):
    away = Client("redis://127.0.0.1:9/0", name="test")
    spend = CountedSpend(lambda _tenant: (away, queue.keys), ledger)
    users = [a_user("u1", spend_since=NOW - timedelta(days=1)), a_user("u2")]
    assert await spend.of_users(users) == [Money(LEDGER, Decimal(0))] * 2
