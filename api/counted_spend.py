"""What users and keys have spent and hold: by the counters that admission uses, else by the ledger."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import structlog

from shared.account import key_suffix, user_suffix
from shared.clickhouse.client import ClickHouseAway
from shared.money import ZERO
from shared.postgres.keys import KeyInfo
from shared.postgres.users import UserInfo
from shared.spend import KeySpender, SpendReader
from shared.valkey.accounts import Accounts, Counted
from shared.valkey.client import Client, CommandRefused, ValkeyAway
from shared.valkey.keys import ShardKeys

UNKNOWN = Counted(None, ZERO, 0, 0)
"""Of an account, while Valkey is away."""

log = structlog.get_logger()


class Money(NamedTuple):
    """In US dollars."""

    spent: Decimal | None
    """Since the last reset: one that is due is made by the next request, or within a minute."""
    held: Decimal


class CountedSpend:
    """A counter holds only where its owner has a budget, and counts in the window that it has."""

    def __init__(
        self, queue_of: Callable[[str], tuple[Client, ShardKeys]], ledger: SpendReader
    ) -> None:
        """`queue_of` tells where a tenant's accounts are, and the way there."""
        self._queue_of = queue_of
        self._ledger = ledger

    async def of_users(self, users: Sequence[UserInfo]) -> list[Money]:
        """One for each, in their order. Raises what the ledger raises, where it must be asked."""
        counted = await self._counted(
            [(one.tenant, user_suffix(one.tenant, one.user_id)) for one in users]
        )
        unknown = _unknown(users, counted)
        spent = await self._ledger.spent([users[at].spender for at in unknown])
        return _joined(counted, dict(zip(unknown, spent, strict=True)))

    async def of_keys(self, keys: Sequence[KeyInfo]) -> list[Money]:
        """As `of_users`, but raises nothing: keys must be found and changed without the ledger, too.
        Then nobody knows what those without a counter have spent."""
        counted = await self._counted([(one.tenant, key_suffix(one.public_id)) for one in keys])
        unknown = _unknown(keys, counted)
        asked = [KeySpender(keys[at].public_id, keys[at].spend_since) for at in unknown]
        try:
            spent: Sequence[Decimal | None] = await self._ledger.spent_by_keys(asked)
        except ClickHouseAway:
            spent = [None] * len(asked)
        return _joined(counted, dict(zip(unknown, spent, strict=True)))

    async def _counted(self, wanted: Sequence[tuple[str, str]]) -> list[Counted]:
        """Of pairs of a tenant and a suffix."""
        found: dict[str, Counted] = {}
        for tenant in dict.fromkeys(tenant for tenant, _ in wanted):
            client, keys = self._queue_of(tenant)
            suffixes = [suffix for of, suffix in wanted if of == tenant]
            try:
                counted = await Accounts(keys).counted(client, suffixes)
            except (ValkeyAway, CommandRefused) as error:
                log.warning("Counters cannot be read", action="counters_unread", error=str(error))
                continue
            found.update(zip(suffixes, counted, strict=True))
        return [found.get(suffix, UNKNOWN) for _, suffix in wanted]


def _unknown(owners: Sequence[UserInfo | KeyInfo], counted: Sequence[Counted]) -> list[int]:
    """The places of those that the ledger must be asked for."""
    return [
        at
        for at, (owner, one) in enumerate(zip(owners, counted, strict=True))
        if owner.budget_id is None or not one.is_of(owner.budget_started_at, owner.spend_since)
    ]


def _joined(counted: Sequence[Counted], spent: Mapping[int, Decimal | None]) -> list[Money]:
    return [Money(spent.get(at, one.spent), one.held) for at, one in enumerate(counted)]
