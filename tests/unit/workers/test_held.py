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
