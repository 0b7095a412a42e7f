"""Compares what the simulator served with what ClickHouse was told: call by call, row by row."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import clickhouse_connect
import httpx
import msgspec
from clickhouse_connect.driver.client import Client
from typing_extensions import override

from api.cli.ready import Ready
from tests.e2e.agreement import PROFILES, Agreement, Row
from workers.simulator.ledger import Call

PAGE_CALLS = 10_000
NEVER_SENT = frozenset(
    {"upstream_error", "upstream_timeout", "deadline_exceeded", "worker_drained"}
)
"""A failed attempt with one of these codes may have ended before the provider had its request."""


class Page(msgspec.Struct):
    calls: list[Call]
    next_after: int


COLUMNS = (
    "replaceAll(toString(row_id), '-', '')",
    "replaceAll(toString(request_id), '-', '')",
    *Row.__struct_fields__[2:],
)
SINCE = "started_at >= toDateTime64(%(at)s, 6, 'UTC')"
VALUES = "tuple(status, error_code, usage_source, billed, input_tokens, output_tokens, cost_usd)"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment between two tests: what came before belongs to others."""

    last_call: int
    at: datetime

    @property
    def exact(self) -> str:
        """As text, because a parameter that is a time loses its fraction."""
        return self.at.strftime("%Y-%m-%d %H:%M:%S.%f")


@dataclass(slots=True)
class Verdict:
    """What does not fit. Each entry is a sentence."""

    calls: int = 0
    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    repeated_inserts: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    """Rows of calls that reached the provider, and whose worker died."""
    cached: int = 0
    dry_runs: int = 0
    """Calls that have no row, as they must not."""
    never_sent: int = 0
    """Rows of attempts that ended before the provider had read their request."""

    @override
    def __str__(self) -> str:
        shown = "".join(
            f"\n  {name}: {sentence}"
            for name in ("missing", "doubled", "wrong")
            for sentence in getattr(self, name)[:10]
        )
        return (
            f"{self.calls} calls, {self.rows} rows {dict(self.statuses)}: "
            f"{len(self.missing)} missing, {len(self.doubled)} doubled, {len(self.wrong)} wrong, "
            f"{self.lost} lost with their worker, {self.never_sent} ended before they were sent, "
            f"{self.cached} from the cache, {self.dry_runs} dry runs without a row, "
            f"{self.repeated_inserts} inserts repeated and folded{shown}"
        )

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.doubled or self.wrong)


class Books:
    """The simulator's ledger and the spend table of one running gateway."""

    def __init__(self, ready: Ready) -> None:
        assert ready.simulator_url is not None
        self._simulator = ready.simulator_url
        self._clickhouse = ready.clickhouse_url

    def mark(self) -> Mark:
        last = httpx.get(f"{self._simulator}/_sim/ledger/summary", timeout=10).json()["last"]
        return Mark(last, datetime.now(UTC))

    def calls(self, since: Mark) -> list[Call]:
        found: list[Call] = []
        after = since.last_call
        while True:
            answer = httpx.get(
                f"{self._simulator}/_sim/ledger",
                params={"after": after, "limit": PAGE_CALLS},
                timeout=30,
            )
            page = msgspec.json.decode(answer.content, type=Page)
            if not page.calls:
                return found
            found += page.calls
            after = page.next_after

    def running_calls(self) -> int:
        summary = httpx.get(f"{self._simulator}/_sim/ledger/summary", timeout=10).json()
        return int(summary["by_status"]["running"])

    def rows(self, since: Mark) -> list[Row]:
        """As readers see them: folded."""
        with self._client() as client:
            found = client.query(
                f"SELECT {', '.join(COLUMNS)} FROM spend WHERE {SINCE}"  # noqa: S608
                " ORDER BY started_at",
                {"at": since.exact},
            )
        return [Row(*values) for values in found.result_rows]

    def raw(self, since: Mark) -> dict[str, tuple[int, int]]:
        """Of each row id: how often it was inserted, and in how many versions."""
        with self._client() as client:
            found = client.query(
                f"SELECT {COLUMNS[0]}, count(), uniqExact({VALUES}) FROM spend_rows"  # noqa: S608
                f" WHERE {SINCE} GROUP BY row_id",
                {"at": since.exact},
            )
        return {row_id: (count, versions) for row_id, count, versions in found.result_rows}

    def reconcile(self, since: Mark, *, dry_profile: str = "") -> Verdict:
        return reconcile(
            self.calls(since), self.rows(since), self.raw(since), dry_profile=dry_profile
        )

    @contextmanager
    def _client(self) -> Iterator[Client]:
        client = clickhouse_connect.get_client(dsn=self._clickhouse)
        try:
            yield client
        finally:
            client.close()


def reconcile(
    calls: Sequence[Call],
    rows: Sequence[Row],
    raw: Mapping[str, tuple[int, int]],
    *,
    dry_profile: str = "",
) -> Verdict:
    """`dry_profile`: the provider whose calls were all dry runs, which have no row."""
    agreement = Agreement()
    dry = [call for call in calls if call.profile == dry_profile]
    calls = [call for call in calls if call.profile != dry_profile]
    verdict = Verdict(calls=len(calls), rows=len(rows), dry_runs=len(dry))
    verdict.statuses.update(row.status for row in rows)
    dry_ids = {call.client_request_id for call in dry}
    verdict.wrong += [
        f"a row of a dry run: {row}"
        for row in rows
        if row.row_id in dry_ids or (dry_profile and PROFILES.get(row.provider) == dry_profile)
    ]
    verdict.repeated_inserts = sum(count - 1 for count, _ in raw.values())
    by_call, by_row = _by_id(calls, verdict), _rows_by_id(rows, verdict)
    verdict.wrong += [
        f"row {row_id} was inserted in {versions} versions"
        for row_id, (_, versions) in raw.items()
        if versions > 1
    ]
    for row_id, call in by_call.items():
        row = by_row.get(row_id)
        if row is None:
            verdict.missing.append(_told(call))
        else:
            verdict.wrong += [
                f"{wrong}: {row} {_told(call)}" for wrong in agreement.faults(call, row)
            ]
    for row_id, row in by_row.items():
        verdict.wrong += [f"{wrong}: {row}" for wrong in agreement.money_faults(row)]
        if row_id not in by_call:
            _without_call(row, verdict)
        elif row.status == "lost":
            verdict.lost += 1
    return verdict


def _by_id(calls: Sequence[Call], verdict: Verdict) -> dict[str, Call]:
    """Each attempt is one call: the same id twice is a request sent again behind our back."""
    found: dict[str, Call] = {}
    for call in calls:
        if call.client_request_id is None:
            verdict.wrong.append(f"a call without an attempt's id: {_told(call)}")
        elif call.client_request_id in found:
            verdict.doubled.append(f"an attempt sent twice: {_told(call)}")
        else:
            found[call.client_request_id] = call
    return found


def _rows_by_id(rows: Sequence[Row], verdict: Verdict) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        if row.row_id in found:
            verdict.doubled.append(f"two rows of one attempt after folding: {row}")
        found[row.row_id] = row
    return found


def _without_call(row: Row, verdict: Verdict) -> None:
    """A worker may die, or its client leave, between the record and the send."""
    if row.cached and row.status == "completed":
        verdict.cached += 1
        return
    unsent = row.status in ("lost", "cancelled") or (
        row.status == "failed" and row.error_code in NEVER_SENT
    )
    if unsent and not row.output_tokens:
        verdict.never_sent += 1
    else:
        verdict.wrong.append(f"a row without a call: {row}")


def repeated(calls: Sequence[Call], rows: Sequence[Row]) -> list[str]:
    """Jobs that called a provider again although an earlier call had completed."""
    request_of = {row.row_id: row.request_id for row in rows}
    served: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.n):
        served[request_of.get(call.client_request_id or "", "")].append(call)
    return [
        f"{request_id}: {[_told(call) for call in some]}"
        for request_id, some in served.items()
        if request_id and any(call.status == "completed" for call in some[:-1])
    ]


def _told(call: Call) -> str:
    return (
        f"call {call.n} {call.client_request_id} {call.model} stream={call.stream} {call.status} "
        f"fault={call.fault} tokens={call.prompt_tokens}+{call.completion_tokens}"
    )
