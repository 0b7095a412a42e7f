"""The simulator's ledger, in memory and on disk."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from shared.clock import StillClock
from workers.simulator.ledger import STOPPED, Call, Ledger, LedgerFile
from workers.simulator.pace import Pace


class OpenLedger(Protocol):
    def __call__(self, path: Path | None = None, *, capacity: int = 100) -> Ledger: ...


@pytest.fixture
def open_ledger() -> Iterator[OpenLedger]:
    with ExitStack() as files:

        def opened(path: Path | None = None, *, capacity: int = 100) -> Ledger:
            file = files.enter_context(closing(LedgerFile(path))) if path is not None else None
            return Ledger(clock=StillClock(), capacity=capacity, file=file)

        yield opened


def begin(ledger: Ledger, name: str) -> Call:
    return ledger.begin(
        call_id=name, client_request_id=None, profile="near", model="sim/echo", prompt_tokens=4
    )


def names(ledger: Ledger, *, after: int = 0, limit: int = 100) -> list[str]:
    return [call.call_id for call in ledger.page(after=after, limit=limit)]


def test_pages_follow_each_other_by_number(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    for name in "abcde":
        begin(ledger, name)
    assert names(ledger, limit=2) == ["a", "b"]
    assert names(ledger, after=2, limit=2) == ["c", "d"]
    assert names(ledger, after=4, limit=2) == ["e"]
    assert names(ledger, after=5) == []


def test_the_first_ending_stands(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    call = begin(ledger, "a")
    ledger.end(call, "fault", fault="stall")
    ledger.end(call, "aborted")
    assert (call.status, call.fault, call.closed_after_ms) == ("fault", "stall", None)


def test_an_aborted_call_says_after_how_long() -> None:
    clock = StillClock()
    ledger = Ledger(clock=clock, capacity=10)
    call = begin(ledger, "a")
    clock.advance(0.25)
    ledger.end(call, "aborted")
    assert call.closed_after_ms == 250.0


def test_a_full_ledger_forgets_its_oldest_calls_and_says_so(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(capacity=3)
    for name in "abcde":
        begin(ledger, name)
    assert names(ledger) == ["c", "d", "e"]
    assert ledger.summary()["forgotten_to"] == 2


def test_the_summary_counts_by_status_and_sums_tokens(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    first, second, _ = (begin(ledger, name) for name in "abc")
    first.completion_tokens = 5
    ledger.end(first, "completed")
    ledger.end(second, "aborted")
    summary = ledger.summary()
    assert summary["by_status"] == {"running": 1, "completed": 1, "aborted": 1, "fault": 0}
    assert (summary["prompt_tokens"], summary["completion_tokens"]) == (12, 5)


def test_a_ledger_on_disk_is_the_same_after_a_restart(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    path = tmp_path / "ledger"
    ledger = open_ledger(path)
    call = begin(ledger, "a")
    call.completion_tokens = 9
    ledger.end(call, "completed")
    begin(ledger, "b")
    again = open_ledger(path)
    first, second = again.page(after=0, limit=10)
    assert first == call
    assert (second.status, second.fault) == ("fault", STOPPED)
    assert begin(again, "c").n == 3
    assert names(open_ledger(path)) == ["a", "b", "c"]


def test_a_line_torn_by_a_crash_is_dropped(tmp_path: Path, open_ledger: OpenLedger) -> None:
    path = tmp_path / "ledger"
    begin(open_ledger(path), "a")
    with path.open("ab") as file:
        file.write(b'{"n": 2, "call_')
    ledger = open_ledger(path)
    begin(ledger, "b")
    assert names(open_ledger(path)) == ["a", "b"]


def test_a_damaged_line_in_the_middle_is_not_passed_over(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(b"nonsense\n")
    with pytest.raises(msgspec.DecodeError):
        open_ledger(path)


def test_a_reset_forgets_also_what_ends_later(tmp_path: Path, open_ledger: OpenLedger) -> None:
    path = tmp_path / "ledger"
    ledger = open_ledger(path)
    call = begin(ledger, "a")
    ledger.reset()
    ledger.end(call, "completed")
    begin(ledger, "b")
    assert names(ledger) == ["b"]
    assert names(open_ledger(path)) == ["b"]


def test_a_pace_is_changed_member_by_member_and_never_to_nonsense() -> None:
    pace = Pace(latency_ms=5).changed({"tokens_per_second": 50})
    assert (pace.latency_ms, pace.tokens_per_second) == (5, 50)
    wrong: list[dict[str, object]] = [
        {"latency_ms": -1},
        {"latency_ms": "5"},
        {"warp": 9},
        {"stall_seconds": 1e9},
    ]
    for change in wrong:
        with pytest.raises(msgspec.ValidationError):
            pace.changed(change)
