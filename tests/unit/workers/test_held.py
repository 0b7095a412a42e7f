"""A held job: when its task is stopped, and when its handler waits for a reader."""

import asyncio
from collections.abc import Callable

import pytest

from tests.unit.workers.jobs import a_held_job
from workers.held import HeldJob

STOPS = [HeldJob.cancel, HeldJob.lose, HeldJob.time_out, HeldJob.drain]


async def test_a_handler_waits_while_its_reader_is_behind() -> None:
    held = a_held_job()
    await held.flowing()
    held.pause()
    held.pause()
    waiting = asyncio.create_task(held.flowing())
    await asyncio.sleep(0)
    assert not waiting.done()
    held.resume()
    held.resume()
    async with asyncio.timeout(1):
        await waiting
        await held.flowing()


async def test_a_reader_that_falls_behind_again_at_once_is_waited_for_again() -> None:
    held = a_held_job()
    held.pause()
    waiting = asyncio.create_task(held.flowing())
    await asyncio.sleep(0)
    held.resume()
    held.pause()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    held.resume()
    async with asyncio.timeout(1):
        await waiting


async def a_stream_that_is_read_on(seconds: float = 60) -> tuple[HeldJob, asyncio.Task[None]]:
    held = a_held_job()
    task = asyncio.create_task(asyncio.sleep(60))
    held.run_as(task)
    held.begun = True
    held.read_on(seconds)
    return held, task


async def test_a_stream_whose_client_left_is_read_on_and_then_stopped() -> None:
    held, task = await a_stream_that_is_read_on(0.05)
    held.pause()
    held.cancel()
    held.cancel()
    async with asyncio.timeout(1):
        await held.flowing()  # nobody is behind any more
    assert held.was_stopped
    assert not task.cancelling()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()


@pytest.mark.parametrize("stop", [HeldJob.lose, HeldJob.time_out, HeldJob.drain])
async def test_what_stops_a_job_stops_one_that_is_read_on(stop: Callable[[HeldJob], None]) -> None:
    held, task = await a_stream_that_is_read_on()
    held.cancel()
    stop(held)
    assert task.cancelling() == 1
    stop(held)
    assert task.cancelling() == 1
    assert (held.timed_out, held.drained) == (False, False)  # its client left: so it ends
    await asyncio.wait([task], timeout=1)


async def test_what_was_read_to_its_end_is_not_stopped_later() -> None:
    held, task = await a_stream_that_is_read_on(0.02)
    held.cancel()
    held.read_on(0)
    await asyncio.sleep(0.05)
    assert not task.cancelling()
    task.cancel()


async def test_after_its_stream_a_job_is_stopped_at_once() -> None:
    held, task = await a_stream_that_is_read_on()
    held.read_on(0)
    held.cancel()
    assert task.cancelling() == 1
    await asyncio.wait([task], timeout=1)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("begun", [True, False])
async def test_a_task_is_cancelled_only_once_it_has_begun(
    stop: Callable[[HeldJob], None], begun: bool
) -> None:
    held = a_held_job()
    task = asyncio.create_task(asyncio.sleep(60))
    held.run_as(task)
    held.begun = begun
    stop(held)
    assert held.was_stopped
    assert task.cancelling() == begun
    task.cancel()
