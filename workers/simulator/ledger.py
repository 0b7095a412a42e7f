"""Remembers every chat call the simulator served: ids, times and counts, never content.

It is the truth that metering is checked against, so with a file it outlives the process: one
line when a call begins, one when it ends, the later line of a call being the valid one.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from shared.clock import Clock

Status = Literal["running", "completed", "aborted", "fault"]
STOPPED = "simulator_stopped"  # the fault of a call that its simulator did not outlive


class Call(msgspec.Struct, kw_only=True):
    """One call. `completion_tokens` counts what was written so far."""

    n: int
    """Its number in the ledger, from 1."""
    call_id: str
    """Part of the answer's own id."""
    client_request_id: str | None
    """The caller's x-client-request-id."""
    profile: str
    model: str | None
    """None when it is no model of ours: a caller could write anything there."""
    stream: bool
    status: Status = "running"
    fault: str | None = None
    """The kind of fault that was asked for, `refused`, or why the call could not end."""
    http_status: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started_at: float
    ended_at: float | None = None
    closed_after_ms: float | None = None
    """Aborted: how long after its start the client was gone."""


class LedgerFile:
    """JSON lines. Writes go to the kernel at once, so a killed process loses none of them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)

    def load(self) -> list[Call]:
        """Every call as last written. A line torn by a crash is dropped from the file."""
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        decode = msgspec.json.Decoder(Call).decode
        calls = {(call := decode(line)).n: call for line in whole.splitlines()}
        return list(calls.values())

    def append(self, call: Call) -> None:
        self._file.write(msgspec.json.encode(call) + b"\n")

    def clear(self) -> None:
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


class Ledger:
    """At most `capacity` calls are kept in memory, the newest; the file keeps them all."""

    def __init__(self, *, clock: Clock, capacity: int, file: LedgerFile | None = None) -> None:
        self._clock = clock
        self._capacity = capacity
        self._file = file
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._first = 1
        for call in file.load() if file is not None else ():
            self._recall(call)

    def begin(
        self,
        *,
        call_id: str,
        client_request_id: str | None,
        profile: str,
        model: str | None = None,
        stream: bool = False,
        fault: str | None = None,
        prompt_tokens: int = 0,
    ) -> Call:
        """Notes a call before the first byte of its answer leaves."""
        call = Call(
            n=self._next,
            call_id=call_id,
            client_request_id=client_request_id,
            profile=profile,
            model=model,
            stream=stream,
            fault=fault,
            prompt_tokens=prompt_tokens,
            started_at=self._clock.now(),
        )
        self._keep(call)
        self._write(call)
        return call

    def end(self, call: Call, status: Status, *, fault: str | None = None) -> None:
        """Notes how a call ended; the first ending stands."""
        if call.status != "running":
            return
        call.status = status
        call.fault = fault or call.fault
        call.ended_at = self._clock.now()
        if status == "aborted":
            call.closed_after_ms = round((call.ended_at - call.started_at) * 1000, 3)
        # A call from before a reset belongs to no ledger any more.
        if call.n in self._calls:
            self._write(call)

    def page(self, *, after: int, limit: int) -> list[Call]:
        """Calls numbered above `after`, in order. Those still running will change."""
        start = max(after + 1, self._first)
        return [self._calls[n] for n in range(start, min(start + limit, self._next))]

    def summary(self) -> dict[str, object]:
        counts = Counter(call.status for call in self._calls.values())
        statuses: tuple[Status, ...] = ("running", "completed", "aborted", "fault")
        return {
            "calls": len(self._calls),
            "by_status": {status: counts[status] for status in statuses},
            "prompt_tokens": sum(call.prompt_tokens for call in self._calls.values()),
            "completion_tokens": sum(call.completion_tokens for call in self._calls.values()),
            "last": self._next - 1,
            "forgotten_to": self._first - 1,
        }

    def reset(self) -> None:
        """Forgets everything. Numbers go on, so that an old cursor skips nothing."""
        self._calls.clear()
        self._first = self._next
        if self._file is not None:
            self._file.clear()

    def _recall(self, call: Call) -> None:
        if not self._calls:
            self._first = self._next = call.n
        self._keep(call)
        if call.status == "running":
            self.end(call, "fault", fault=STOPPED)

    def _keep(self, call: Call) -> None:
        self._calls[call.n] = call
        self._next = call.n + 1
        if len(self._calls) > self._capacity:
            del self._calls[self._first]
            self._first += 1

    def _write(self, call: Call) -> None:
        if self._file is not None:
            self._file.append(call)
