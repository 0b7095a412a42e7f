"""The cache of one job, over a store in memory: whose answer it gives to whom, and what it keeps."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import msgspec
import pytest
from typing_extensions import override

from shared.clock import StillClock
from shared.document import CacheBounds
from shared.job import JobHeader
from shared.metrics import Metrics
from shared.money import ZERO
from shared.price import Price
from shared.seal import KEY_BYTES, Seal
from shared.usage import Usage
from shared.valkey.cache import CacheEntries
from shared.valkey.client import CommandRefused, Disconnected
from tests.unit.workers.jobs import ADMITTED_AT, INPUT_ESTIMATE, a_header, a_route
from workers.inference.attempt import Attempt
from workers.inference.cache import PUTS_AT_ONCE, Cache, Entry, Hit, JobCache, Puts
from workers.inference.meter import Meter
from workers.inference.recording import is_finished
from workers.inference.routing import Route

SEAL = Seal([bytes(range(KEY_BYTES))])
BODY = b'{"id":"theirs","created":5,"choices":[1],"usage":{"prompt_tokens":3,"total_tokens":3}}'
ASKED = {"model": "up", "messages": "the prompt"}


class Memory(CacheEntries):
    """A store without a server."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.puts: list[dict[str, Any]] = []
        self.error: Exception | None = None

    @override
    async def get(self, name: str) -> bytes | None:
        if self.error is not None:
            raise self.error
        return self.kept.get(name)

    @override
    async def put(self, name: str, sealed: bytes, *, ttl_seconds: float, max_bytes: int) -> bool:
        if self.error is not None:
            raise self.error
        self.puts.append({"ttl_seconds": ttl_seconds, "max_bytes": max_bytes})
        self.kept[name] = sealed
        return True


class Said:
    """An exchange that sends a document, and gives what was kept as it is."""

    def __init__(self, document: dict[str, Any], url: str = "http://p.invalid/v1") -> None:
        self._document = document
        self._url = url
        self.replayed: Sequence[bytes] = ()
        self.completes = True

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        return httpx.Request("POST", self._url, content=json.dumps(self._document).encode())

    def replay(self, pieces: Sequence[bytes], route: Route, attempt: Attempt) -> bytes:
        self.replayed = pieces
        return b"replayed"

    def is_complete(self, pieces: Sequence[bytes]) -> bool:
        return self.completes


class Case:
    """A store, and jobs that use it one after the other."""

    def __init__(self) -> None:
        self.store = Memory()
        self.clock = StillClock(ADMITTED_AT)
        self.metrics = Metrics()
        self.bounds = CacheBounds()
        self.puts = Puts()

    def job(self, seal: Seal = SEAL, exchange: Said | None = None, **header: Any) -> JobCache:
        shared = Cache(
            seal=seal,
            clock=self.clock,
            meter=Meter(self.metrics),
            name_key=seal.key_for(b"cache names"),
            puts=self.puts,
        )
        made = a_header(**{"cache": "on", **header})
        return shared.of_job(made, exchange or Said(ASKED), self.store, self.bounds)

    def attempt(self, job: JobCache, header: JobHeader | None = None) -> Attempt:
        attempt = Attempt(
            header or a_header(), a_route(Price()), tier="", number=1, claimed_at=ADMITTED_AT,
            input_estimate=INPUT_ESTIMATE, clock=self.clock,
        )  # fmt: skip
        attempt.recording = job.recording()
        attempt.finish_reason = "stop"
        return attempt

    async def keep(
        self,
        job: JobCache,
        *pieces: bytes,
        route: Route | None = None,
    ) -> None:
        attempt = self.attempt(job)
        if attempt.recording is not None:
            attempt.recording.add(pieces or [BODY])
        await job.keep(route or a_route(Price()), attempt)

    async def find(self, job: JobCache, route: Route | None = None) -> Hit | None:
        return await job.find(route or a_route(Price()), self.attempt(job))

    def looked_up(self, outcome: str) -> float:
        return self.metrics.cache_lookups.labels(outcome).value

    def put(self, outcome: str) -> float:
        return self.metrics.cache_puts.labels(outcome).value


@pytest.fixture
def case() -> Case:
    return Case()


async def test_the_same_request_is_found_and_costs_nothing(case: Case) -> None:
    await case.keep(case.job())
    hit = await case.find(case.job())
    assert hit is not None
    assert (hit.answer.body, hit.answer.content_type) == (b"replayed", "application/json")
    assert (hit.answer.cost_usd, hit.answer.upstream_ms) == ("0", 0.0)
    assert hit.answer.headers == {"x-ollm-cache": "hit"}
    row = hit.row
    assert (row.status, row.cached, row.billed, row.cost_usd) == ("completed", True, False, ZERO)
    assert (row.usage, row.usage_source, row.ttft_ms, row.upstream_ms) == (Usage(), "none", None, 0)
    assert (case.looked_up("hit"), case.looked_up("miss"), case.put("stored")) == (1, 0, 1)


async def test_a_streams_hit_has_the_head_of_a_stream(case: Case) -> None:
    await case.keep(case.job(stream=True), b'{"choices":[]}')
    hit = await case.find(case.job(stream=True))
    assert hit is not None
    assert hit.answer.content_type == "text/event-stream; charset=utf-8"
    assert hit.answer.headers == {
        "x-ollm-cache": "hit", "cache-control": "no-cache", "x-accel-buffering": "no",
    }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "another"},
        {"endpoint": "embeddings"},
        {"stream": True},
        {"include_usage": True},
    ],
    ids=str,
)
async def test_another_job_does_not_find_it(case: Case, other: dict[str, Any]) -> None:
    await case.keep(case.job())
    assert await case.find(case.job(**other)) is None
    assert case.looked_up("miss") == 1


@pytest.mark.parametrize(
    "other",
    [
        {**ASKED, "messages": "another prompt"},
        {**ASKED, "temperature": 0},
        {**ASKED, "model": "another"},
        {**ASKED, "unheard_of": None},
    ],
    ids=str,
)
async def test_another_document_does_not_find_it(case: Case, other: dict[str, Any]) -> None:
    await case.keep(case.job())
    assert await case.find(case.job(exchange=Said(other))) is None


@pytest.mark.parametrize("field", ["model", "upstream_model"])
async def test_another_route_does_not_find_it(case: Case, field: str) -> None:
    await case.keep(case.job())
    route = msgspec.structs.replace(a_route(Price()), **{field: "another"})
    assert await case.find(case.job(), route=route) is None


async def test_another_provider_or_another_address_of_it_does_not_find_it(case: Case) -> None:
    await case.keep(case.job())
    route = a_route(Price())
    route.provider.name = "another"  # type: ignore[misc]
    assert await case.find(case.job(), route=route) is None
    assert await case.find(case.job(exchange=Said(ASKED, "http://q.invalid/v1"))) is None


async def test_names_are_told_by_nobody_without_the_key(case: Case) -> None:
    await case.keep(case.job())
    assert await case.find(case.job(Seal([b"\1" * KEY_BYTES]))) is None
    (name,) = case.store.kept
    assert len(name) == 64
    assert SEAL.key_for(b"cache names") != SEAL.key_for(b"something else")


async def test_what_identifies_the_request_alone_does_not_matter(case: Case) -> None:
    await case.keep(case.job())
    same = case.job(
        user="other", key_id="k", asked_model="by another name", tags={"a": "b"},
        include_raw_usage=True, include_raw_response=True,
    )  # fmt: skip
    assert await case.find(same) is not None


# ---- modes


@pytest.mark.parametrize(
    ("mode", "reads", "writes", "says"),
    [
        ("on", True, True, {"x-ollm-cache": "miss"}),
        ("read_only", True, False, {"x-ollm-cache": "miss"}),
        ("write_only", False, True, {}),
    ],
)
async def test_a_mode_reads_or_writes(
    case: Case, mode: str, reads: bool, writes: bool, says: dict[str, str]
) -> None:
    await case.keep(case.job(cache=mode))
    assert bool(case.store.kept) == writes
    await case.keep(case.job(cache="on"))
    assert (await case.find(case.job(cache=mode)) is not None) == reads
    assert case.job(cache=mode).headers == says


async def test_a_dry_run_may_read_and_never_writes(case: Case) -> None:
    await case.keep(case.job(dryrun=True))
    assert case.store.kept == {}
    await case.keep(case.job())
    assert await case.find(case.job(dryrun=True)) is not None


async def test_another_endpoint_has_no_cache(case: Case) -> None:
    job = case.job(endpoint="rerank")
    assert job.recording() is None
    assert job.headers == {}
    assert await case.find(job) is None
    assert case.looked_up("miss") == 0


# ---- age


async def test_an_entry_that_is_too_old_is_not_used_but_replaced(case: Case) -> None:
    await case.keep(case.job())
    case.clock.time = ADMITTED_AT + 10
    assert await case.find(case.job(cache_max_age=9)) is None
    assert await case.find(case.job(cache_max_age=10)) is not None
    assert await case.find(case.job(cache_max_age=None)) is not None
    assert case.looked_up("stale") == 1
    await case.keep(case.job(cache_max_age=9))
    assert await case.find(case.job(cache_max_age=9)) is not None


# ---- what is kept


async def kept(case: Case) -> Entry:
    ((name, sealed),) = case.store.kept.items()
    opened = SEAL.open(sealed, b"cache:" + name.encode())
    return msgspec.msgpack.decode(opened, type=Entry)


async def test_a_whole_answer_is_kept_without_its_usage_and_its_time(case: Case) -> None:
    await case.keep(case.job())
    entry = await kept(case)
    assert entry.stored_at == ADMITTED_AT
    (piece,) = entry.pieces
    assert json.loads(piece) == {
        "id": "theirs",
        "choices": [1],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
    assert case.store.puts == [{"ttl_seconds": 86_400.0, "max_bytes": 256 << 20}]


async def test_an_answer_that_counted_nothing_is_kept_as_one_that_counts_zero(case: Case) -> None:
    await case.keep(case.job(endpoint="embeddings"), b'{"data":[{"embedding":[1.50,-0.0]}]}')
    (piece,) = (await kept(case)).pieces
    assert b'"data":[{"embedding":[1.50,-0.0]}]' in piece
    assert json.loads(piece)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


async def test_a_streams_events_are_kept_and_only_the_one_with_usage_says_it(case: Case) -> None:
    events = [
        b'{"created":5,"choices":[{"delta":{"content":"hi"}}],"usage":null}',
        b'{"created":5,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    ]
    await case.keep(case.job(stream=True), *events)
    first, last = (await kept(case)).pieces
    assert json.loads(first) == {"choices": [{"delta": {"content": "hi"}}], "usage": None}
    assert set(json.loads(last)["usage"].values()) == {0}


async def test_an_answer_that_is_not_complete_is_not_kept(case: Case) -> None:
    exchange = Said(ASKED)
    exchange.completes = False
    await case.keep(case.job(exchange=exchange))
    assert case.store.kept == {}


async def test_no_more_is_kept_at_once_than_there_is_room_for(case: Case) -> None:
    with ExitStack() as stack:
        for _ in range(PUTS_AT_ONCE):
            assert stack.enter_context(case.puts.one())
        await case.keep(case.job())
    assert (case.store.kept, case.put("refused")) == ({}, 1)
    await case.keep(case.job())
    assert case.put("stored") == 1


async def test_a_store_that_failed_is_not_asked_for_the_next_route(case: Case) -> None:
    job = case.job()
    case.store.error = Disconnected("away")
    assert await case.find(job) is None
    assert await case.find(job) is None
    assert case.looked_up("error") == 1


def choice(reason: str | None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "message": {"content": "hi"}, "finish_reason": reason}


def chunks(*some: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps({"choices": choices}).encode() for choices in some]


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls"])
def test_a_completion_that_ended_by_itself_is_finished(reason: str) -> None:
    assert is_finished(chunks([choice(reason)]))
    assert is_finished(chunks([choice(None)], [choice(reason)], []))


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"x"],
        chunks([choice(None)]),
        *(chunks([choice(reason)]) for reason in ("error", "content_filter", "abort", "new")),
        chunks([choice("stop"), choice("error", 1)]),
        chunks([choice("stop"), choice(None, 1)]),
        chunks([choice("stop")], [choice(None, 1)]),
        chunks([choice("error")], [choice("stop")]),
    ],
    ids=str,
)
def test_a_completion_that_was_broken_off_or_has_more_choices_is_not(pieces: list[bytes]) -> None:
    assert not is_finished(pieces)


@pytest.mark.parametrize("pieces", [[b'{"a":"%b"}' % (b"x" * 100)], [b'{"a":1}'] * 20], ids=len)
async def test_a_long_answer_is_not_kept(case: Case, pieces: list[bytes]) -> None:
    case.bounds = CacheBounds(max_entry_bytes=80)
    await case.keep(case.job(stream=True), *pieces)
    assert case.store.kept == {}
    assert (case.put("too_large"), case.put("stored")) == (1, 0)


async def test_nothing_of_the_prompt_or_the_answer_can_be_read_in_the_store(case: Case) -> None:
    await case.keep(case.job(), b'{"choices":["the answer"]}')
    ((name, sealed),) = case.store.kept.items()
    assert b"the answer" not in sealed
    assert "prompt" not in name


# ---- failures


@pytest.mark.parametrize("error", [Disconnected("away"), CommandRefused("OOM"), TimeoutError()])
async def test_a_store_that_fails_costs_a_call_and_no_answer(case: Case, error: Exception) -> None:
    case.store.error = error
    assert await case.find(case.job()) is None
    await case.keep(case.job())
    assert (case.looked_up("error"), case.put("refused")) == (1, 1)


@pytest.mark.parametrize("damage", ["moved", "altered", "not an entry"])
async def test_an_entry_that_cannot_be_read_is_none(case: Case, damage: str) -> None:
    await case.keep(case.job())
    ((name, sealed),) = case.store.kept.items()
    bound_to = b"cache:" + (b"0" * 64 if damage == "moved" else name.encode())
    plain = b"\xc1" if damage == "not an entry" else SEAL.open(sealed, b"cache:" + name.encode())
    resealed = SEAL.seal(plain, bound_to)
    case.store.kept[name] = resealed[:-1] + b"!" if damage == "altered" else resealed
    assert await case.find(case.job()) is None
    assert case.looked_up("error") == 1
