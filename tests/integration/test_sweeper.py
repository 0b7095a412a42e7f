"""Jobs that nobody would ever end are ended on a real Valkey, and what they hold is released."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.valkey import sweeper
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim
from shared.valkey.plain import plain_client
from shared.valkey.sweeper import Sweeper
from tests.integration.holds import HELD_NANO, admit, an_account, held, load
from tests.integration.queue import INBOX, Queue

ACCOUNT = an_account()
GONE = "an-api-process-that-is-gone"
LONG_AGO = 1_700_000_000.0


@pytest.fixture
async def sweep(valkey_db: str, queue: Queue) -> AsyncIterator[Sweeper]:
    client = plain_client(valkey_db, name="test")
    await load(queue, ACCOUNT)
    yield Sweeper(client, [queue.keys, ShardKeys(1)])
    await client.aclose()


@pytest.fixture
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of this moment are old enough, and so is the server."""
    monkeypatch.setattr(sweeper, "GRACE_SECONDS", -1.0)


async def until_stranded(sweep: Sweeper, now: float) -> int:
    """The first look after a start of the server only notes the time."""
    await sweep.sweep_stranded(now)
    return await sweep.sweep_stranded(now)


async def sealed_bytes(queue: Queue) -> int:
    return int(await queue.client.call(b"GET", queue.keys.sealed_bytes))


async def begin(queue: Queue, claim: Claim, *, reply_to: str = INBOX) -> bytes:
    return await queue.lanes().attempt(
        queue.client, claim, reply_to=reply_to, row_id="row", row=b"row", ended=()
    )


async def test_a_job_whose_entry_is_gone_is_ended_and_its_hold_released(queue, sweep):
    lost, alive = await admit(queue, ACCOUNT), await admit(queue, ACCOUNT, lane="flex")
    entry = await queue.client.call(b"HGET", queue.keys.job(lost.request_id), b"entry")
    await queue.client.call(b"XDEL", queue.keys.lane("default"), entry)
    assert await held(queue, ACCOUNT) == (2 * HELD_NANO, 2)
    assert await sweep.sweep_orphans() == [lost.request_id]
    assert await held(queue, ACCOUNT) == (HELD_NANO, 1)
    assert await sealed_bytes(queue) == len(b"sealed")
    assert not await queue.job_exists(lost.request_id)
    assert await queue.job_exists(alive.request_id)
    assert await sweep.sweep_orphans() == []
    assert await held(queue, ACCOUNT) == (HELD_NANO, 1)


async def test_another_job_under_the_same_entry_of_another_lane_hides_no_orphan(queue, sweep):
    lost, other = await asyncio.gather(admit(queue, ACCOUNT), admit(queue, ACCOUNT, lane="flex"))
    entry = await queue.client.call(b"HGET", queue.keys.job(lost.request_id), b"entry")
    await queue.client.call(b"XDEL", queue.keys.lane("default"), entry)
    assert entry == await queue.client.call(b"HGET", queue.keys.job(other.request_id), b"entry")
    assert await sweep.sweep_orphans() == [lost.request_id]
    assert await queue.job_exists(other.request_id)


async def test_jobs_that_wait_run_or_were_given_back_are_no_orphans(queue, sweep):
    headers = [await admit(queue, ACCOUNT) for _ in range(3)]
    [running] = await queue.claimed(slots=1)
    [returned] = await queue.claimed(slots=1)
    assert await begin(queue, running) == b"ok"
    await queue.lanes().give_back(queue.client, returned, ())
    assert await sweep.sweep_orphans() == []
    assert all([await queue.job_exists(header.request_id) for header in headers])


async def test_many_jobs_are_looked_through_page_by_page(queue, sweep, monkeypatch):
    monkeypatch.setattr(sweeper, "PAGE", 5)
    headers = await asyncio.gather(*(admit(queue, ACCOUNT) for _ in range(40)))
    await queue.client.call(b"DEL", queue.keys.lane("default"))
    swept = await sweep.sweep_orphans()
    assert sorted(swept) == sorted(header.request_id for header in headers)
    assert await held(queue, ACCOUNT) == (0, 0)


@pytest.mark.usefixtures("_no_grace")
async def test_a_late_job_whose_api_process_is_gone_is_taken_out_without_any_worker(
    queue, sweep, monkeypatch
):
    monkeypatch.setattr(sweeper, "JOBS_PER_CALL", 2)
    late = {"reply_to": GONE, "admitted_at": LONG_AGO, "queue_seconds": 60.0}
    for _ in range(5):
        await admit(queue, ACCOUNT, **late)
    awaited = await admit(queue, ACCOUNT, **{**late, "reply_to": INBOX})
    assert await until_stranded(sweep, LONG_AGO + 58) == 0, "none has passed its deadline"
    now = LONG_AGO + 10**9  # the entries' own times are the server's
    assert await sweep.sweep_stranded(now) == 5
    assert await held(queue, ACCOUNT) == (HELD_NANO, 1)
    assert await queue.job_exists(awaited.request_id), "its API process answers it"
    assert await queue.client.call(b"XLEN", queue.keys.lane("default")) == 1


@pytest.mark.usefixtures("_no_grace")
async def test_of_claimed_jobs_only_those_of_a_dead_worker_that_had_not_begun_are_taken_out(
    queue, sweep, monkeypatch
):
    late = {"reply_to": GONE, "admitted_at": LONG_AGO, "queue_seconds": 60.0}
    for _ in range(3):
        await admit(queue, ACCOUNT, **late)
    claims = [*await queue.claimed(), *await queue.claimed(), *await queue.claimed()]
    assert len(claims) == 3
    await queue.client.call(b"SET", queue.keys.inbox_lease(GONE), 1)
    assert await begin(queue, claims[0], reply_to=GONE) == b"ok"
    await queue.client.call(b"DEL", queue.keys.inbox_lease(GONE))
    now = LONG_AGO + 10**9
    assert await until_stranded(sweep, now) == 0, "their worker may be alive"
    monkeypatch.setattr(sweeper, "CLAIM_IDLE_SECONDS", 0.0)
    assert await sweep.sweep_stranded(now) == 2
    assert await queue.job_exists(claims[0].request_id), "it may have been charged by a provider"
    assert await held(queue, ACCOUNT) == (HELD_NANO, 1)


async def test_nobody_is_judged_right_after_a_start_of_the_server(queue, sweep, monkeypatch):
    late = {"reply_to": GONE, "admitted_at": LONG_AGO, "queue_seconds": 60.0}
    await admit(queue, ACCOUNT, **late)
    monkeypatch.setattr(sweeper, "GRACE_SECONDS", 1_000_000.0)
    assert await until_stranded(sweep, LONG_AGO + 10**9) == 0
    assert await held(queue, ACCOUNT) == (HELD_NANO, 1)
