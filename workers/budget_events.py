"""What follows when a budget was reset or its soft limit passed: the history, and the webhook.

An event is ended once both were done; a process that dies before that leaves it to another. The
history folds repeats, and a webhook's id is the same each time.
"""

import asyncio
from decimal import Decimal
from typing import Any, Protocol

import msgspec
import structlog

from shared.account import from_ms
from shared.metrics import Metrics
from shared.money import from_nano
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.windows import Owner, Reset, WindowStore
from shared.valkey.client import CommandRefused, ValkeyAway
from shared.valkey.events import BudgetEvent, Claimed, EventStream

LOOK_SECONDS = 0.5
TAKE_OVER_SECONDS = 60.0
"""Idle for so long, an event is somebody's who died: a webhook has half of that."""
LOOK_FOR_LEFT_SECONDS = 15.0
MOST_UNDER_WAY = 1_000
MOST_SENT_AT_ONCE = 20

log = structlog.get_logger()
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Sender(Protocol):
    async def send(self, message_id: str, body: bytes) -> str:
        """Returns how it ended, in time."""
        ...


class BudgetEvents:
    """The loop of one background process."""

    def __init__(
        self, stream: EventStream, windows: WindowStore, webhook: Sender | None, metrics: Metrics
    ) -> None:
        """Without a webhook nobody is told."""
        self._stream = stream
        self._windows = windows
        self._webhook = webhook
        self._metrics = metrics
        self._under_way: set[tuple[int, bytes]] = set()
        self._sending = asyncio.Semaphore(MOST_SENT_AT_ONCE)
        self._look_for_left_at = 0.0
        self._is_away = True

    async def run(self) -> None:
        """Until cancelled: what is under way then stays for the next process."""
        async with asyncio.TaskGroup() as group:
            while True:
                for claimed in await self._claim():
                    await self._begin(claimed, group)
                await asyncio.sleep(LOOK_SECONDS)

    async def _begin(self, claimed: Claimed, group: asyncio.TaskGroup) -> None:
        """Stores it at once; the webhook may take its time."""
        place = (claimed.shard, claimed.entry)
        if place in self._under_way:
            return
        try:
            owner = await self._store(claimed.event)
        except STORE_ERRORS as error:
            # It stays pending, and is taken over when it has been idle.
            log.warning(
                "A budget event is put off", action="event_put_off", error=type(error).__name__
            )
            return
        self._under_way.add(place)
        group.create_task(self._finish(claimed, owner))

    async def _store(self, event: BudgetEvent) -> Owner | None:
        if event.kind == "budget_soft_limit":
            return await self._windows.owner(event.account)
        reset = Reset(
            account=event.account,
            budget_id=event.budget,
            previous_nano=event.spend,
            at_ms=event.at,
            next_ms=event.next or None,
        )
        return await self._windows.reset(reset)

    async def _finish(self, claimed: Claimed, owner: Owner | None) -> None:
        try:
            if self._webhook is not None and owner is not None:
                async with self._sending:
                    outcome = await self._webhook.send(claimed.stable_id, message(claimed, owner))
                self._metrics.webhooks.labels(outcome).inc()
            self._metrics.budget_events.labels(claimed.event.kind).inc()
            await self._stream.end(claimed)
        except (ValkeyAway, CommandRefused) as error:
            log.warning("A budget event was not ended", action="event_kept", error=str(error))
        finally:
            self._under_way.discard((claimed.shard, claimed.entry))

    async def _claim(self) -> list[Claimed]:
        """Empty while Valkey is away."""
        room = MOST_UNDER_WAY - len(self._under_way)
        if room <= 0:
            return []
        try:
            if self._is_away:
                await self._stream.ensure_groups()
                self._is_away = False
            return [*await self._left(room), *await self._stream.claim(room)]
        except (ValkeyAway, CommandRefused) as error:
            if not self._is_away:
                log.warning("Budget events wait", action="events_wait", error=str(error))
            self._is_away = True
            return []

    async def _left(self, room: int) -> list[Claimed]:
        now = asyncio.get_running_loop().time()
        if now < self._look_for_left_at:
            return []
        found = await self._stream.take_over(TAKE_OVER_SECONDS, room)
        self._look_for_left_at = now + LOOK_FOR_LEFT_SECONDS
        return found


def message(claimed: Claimed, owner: Owner) -> bytes:
    """A webhook's body."""
    event = claimed.event
    data: dict[str, Any] = {
        "tenant": owner.tenant,
        "user_id": owner.user_id,
        "key_id": owner.key_id or None,
        "budget_id": event.budget,
    }
    if event.kind == "budget_reset":
        data["previous_spend"] = _usd(event.spend)
        data["reset_at"] = from_ms(event.at).isoformat()
        data["next_reset_at"] = from_ms(event.next).isoformat() if event.next else None
    else:
        data |= {
            "spend": _usd(event.spend),
            "soft_budget": _usd(event.soft),
            "max_budget": None if event.max < 0 else _usd(event.max),
        }
    kind = "budget.reset" if event.kind == "budget_reset" else "budget.soft_limit"
    moment = from_ms(claimed.happened_ms).isoformat()
    return _encode({"type": kind, "timestamp": moment, "data": data})


def _usd(nano: int) -> Decimal:
    return from_nano(nano).normalize()
