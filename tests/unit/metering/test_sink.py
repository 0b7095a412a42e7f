"""The sink's order and its answers to what goes wrong, against small fakes of the two stores.

Fakes because the order of two calls is what is tested; the real stores are in tests/integration.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from shared.clickhouse.client import ClickHouseAway, ContentRefused
from shared.clock import SystemClock
from shared.metrics import Metrics
from shared.spend import SpendRow
from shared.valkey.client import ValkeyAway
from shared.valkey.spend import Claim, Undecodable
from tests.spend_rows import spend_row
from workers.metering import sink as sinks
from workers.metering.batch import Batch
from workers.metering.sink import Sink, token_of


class Stores:
    """Both ends of the sink, and the order in which it called them."""

    def __init__(self, waiting: Sequence[SpendRow | Undecodable] = ()) -> None:
        self.waiting = [Claim(0, b"%d-0" % at, row) for at, row in enumerate(waiting)]
        self.pending: list[Claim] = []
        self.calls: list[str] = []
        self.stored: list[SpendRow] = []
        self.quarantined: dict[bytes, str] = {}
        self.refuse: Callable[[Sequence[SpendRow]], Exception | None] = lambda _rows: None
        self.valkey_failures: list[str] = []

    async def ensure_group(self) -> None:
        self._say("ensure_group")

    async def claim(self, count: int, block_seconds: float = 0) -> list[Claim]:
        self._say("claim")
        claims, self.waiting = self.waiting[:count], self.waiting[count:]
        self.pending += claims
        await asyncio.sleep(0.001)
        return claims

    async def own(self) -> list[Claim]:
        self._say("own")
        return list(self.pending)

    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Claim]:
        self._say("reclaim")
        return []

    async def ack(self, claims: Iterable[Claim]) -> None:
        self._say("ack")
        ended = {claim.entry for claim in claims}
        self.pending = [claim for claim in self.pending if claim.entry not in ended]

    async def quarantine(self, claim: Claim, reason: str) -> None:
        self._say("quarantine")
        self.quarantined[claim.entry] = reason
        self.pending.remove(claim)

    async def leave(self) -> None:
        self._say("leave")

    async def insert(self, rows: Sequence[SpendRow], *, token: str) -> None:
        self.calls.append("insert")
        refusal = self.refuse(rows)
        if refusal:
            raise refusal
        self.stored += rows

    def _say(self, call: str) -> None:
        self.calls.append(call)
        if call in self.valkey_failures:
            self.valkey_failures.remove(call)
            raise ValkeyAway("gone")

    @property
    def is_done(self) -> bool:
        return not self.waiting and not self.pending


@pytest.fixture(autouse=True)
def _no_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a quarter of a second are right in production and long in a test."""
    monkeypatch.setattr(sinks, "POLL_SECONDS", 0.001)


@asynccontextmanager
async def running(
    stores: Stores, *, max_rows: int = 10_000, drain_seconds: float = 1.0
) -> AsyncIterator[Metrics]:
    """A sink at work; on leaving it is told to stop, and has ended."""
    metrics, stop = Metrics(), asyncio.Event()
    clock = SystemClock()
    sink = Sink(
        stores,
        stores,
        Batch(clock=clock, max_rows=max_rows, max_age_seconds=0.01),
        metrics=metrics,
        clock=clock,
        lease_seconds=60,
        drain_seconds=drain_seconds,
    )
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(sink.run(stop))
        try:
            yield metrics
        finally:
            stop.set()


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not met():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0.002)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_rows_are_acknowledged_after_they_are_inserted_and_only_then() -> None:
    stores = Stores([spend_row(at) for at in range(5)])
    async with running(stores) as metrics:
        await until(lambda: stores.is_done)
    assert [call for call in stores.calls if call in {"insert", "ack"}] == ["insert", "ack"]
    assert len(stores.stored) == 5
    assert value(metrics, "gateway_spend_rows_total") == 5


async def test_nothing_is_acknowledged_while_clickhouse_is_away() -> None:
    stores = Stores([spend_row(at) for at in range(5)])
    stores.refuse = lambda _rows: ClickHouseAway("down")
    with capture_logs() as logs:
        async with running(stores, drain_seconds=0.01):
            await until(lambda: stores.calls.count("insert") >= 2)
    assert "ack" not in stores.calls
    assert len(stores.pending) == 5
    assert [line["action"] for line in logs] == ["store_away", "metering_stopped"]


async def test_a_due_batch_stops_the_reading_while_clickhouse_is_away() -> None:
    stores = Stores([spend_row(at) for at in range(50)])
    stores.refuse = lambda _rows: ClickHouseAway("down")
    async with running(stores, max_rows=10, drain_seconds=0.01):
        await until(lambda: stores.calls.count("insert") >= 3)
    assert (len(stores.pending), len(stores.waiting)) == (10, 40)


async def test_rows_go_on_when_clickhouse_is_back() -> None:
    stores = Stores([spend_row(at) for at in range(5)])
    stores.refuse = lambda _rows: ClickHouseAway("down")
    with capture_logs() as logs:
        async with running(stores) as metrics:
            await until(lambda: "insert" in stores.calls)
            stores.refuse = lambda _rows: None
            await until(lambda: stores.is_done)
    assert len(stores.stored) == 5
    assert [line["action"] for line in logs] == ["store_away", "store_back"]
    assert value(metrics, "gateway_store_reconnects_total", store="clickhouse") == 1


async def test_the_poison_rows_are_found_and_the_others_stored() -> None:
    rows = [spend_row(at) for at in range(100)]
    poison = {rows[at].row_id for at in (0, 41, 42, 99)}
    stores = Stores(rows)
    stores.refuse = lambda some: (
        ContentRefused("no") if poison & {row.row_id for row in some} else None
    )
    async with running(stores) as metrics:
        await until(lambda: stores.is_done)
    assert sorted(stores.quarantined) == sorted([b"0-0", b"41-0", b"42-0", b"99-0"])
    assert set(stores.quarantined.values()) == {"no"}
    assert {row.row_id for row in stores.stored} == {row.row_id for row in rows} - poison
    assert len(stores.stored) == 96
    assert value(metrics, "gateway_spend_quarantined_total") == 4


async def test_a_table_that_refuses_every_row_does_not_drain_the_stream_into_quarantine() -> None:
    stores = Stores([spend_row(at) for at in range(1000)])
    stores.refuse = lambda _rows: ContentRefused("a bug of ours")
    with capture_logs() as logs:
        async with running(stores, drain_seconds=0.01):
            await until(lambda: len(stores.quarantined) >= 2 * sinks.MAX_REFUSED_IN_A_ROW)
    assert [line["action"] for line in logs].count("store_away") == 1
    assert len(stores.quarantined) <= 3 * sinks.MAX_REFUSED_IN_A_ROW
    assert len(stores.pending) + len(stores.waiting) >= 700


async def test_an_unreadable_entry_is_set_aside_with_its_reason() -> None:
    stores = Stores([spend_row(1), Undecodable("not a row", b"\xff"), spend_row(2)])
    async with running(stores) as metrics:
        await until(lambda: stores.is_done)
    assert stores.quarantined == {b"1-0": "unreadable: not a row"}
    assert len(stores.stored) == 2
    assert value(metrics, "gateway_spend_quarantined_total") == 1


async def test_a_sink_first_reads_what_it_was_given_and_never_got() -> None:
    stores = Stores([spend_row(1)])
    stores.pending, stores.waiting = stores.waiting, []
    async with running(stores):
        await until(lambda: stores.is_done)
    assert stores.calls[:2] == ["ensure_group", "own"]
    assert len(stores.stored) == 1


async def test_after_a_lost_connection_own_entries_are_read_again_and_not_held_twice() -> None:
    stores = Stores([spend_row(at) for at in range(3)])
    stores.valkey_failures = ["ack"]
    async with running(stores):
        await until(lambda: stores.is_done)
    # The rows were stored, their acknowledgement was lost: stored again, folded by the table.
    assert [call for call in stores.calls if call not in {"claim", "reclaim"}][:8] == [
        "ensure_group",
        "own",
        "insert",
        "ack",
        "ensure_group",
        "own",
        "insert",
        "ack",
    ]
    assert len(stores.stored) == 6


async def test_stopping_stores_and_acknowledges_what_is_held() -> None:
    stores = Stores([spend_row(at) for at in range(3)])
    async with running(stores, max_rows=10_000):
        await until(lambda: len(stores.pending) == 3)
    assert stores.is_done
    assert len(stores.stored) == 3
    assert stores.calls[-1] == "leave"


async def test_a_store_that_hangs_does_not_hold_up_the_stop_for_longer_than_the_drain() -> None:
    stores = Stores([spend_row(1)])
    hanging = asyncio.Event()

    async def hang(rows: Sequence[SpendRow], *, token: str) -> None:
        hanging.set()
        await asyncio.Event().wait()

    stores.insert = hang  # type: ignore[method-assign]
    with capture_logs() as logs:
        async with asyncio.timeout(2), running(stores, drain_seconds=0.05):
            await hanging.wait()
    assert len(stores.pending) == 1
    assert [line["action"] for line in logs] == ["metering_stopped"]


def test_the_token_is_the_same_for_the_same_rows_and_no_others() -> None:
    rows = [spend_row(at) for at in range(3)]
    assert token_of(rows) == token_of(list(rows))
    assert token_of(rows) != token_of(rows[:2])
    ended_again = replace(rows[2], ended_at=rows[2].ended_at + timedelta(microseconds=1))
    assert token_of(rows) != token_of([*rows[:2], ended_again])
