"""A place for one process of a role, kept filled: started, restarted, replaced, emptied."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from api.cli.child import Child, Command
from shared.clock import Clock

EARLY_SECONDS = 1.0
"""A process that ends sooner than this after its start would end again: wait before the next."""
SHORT_SECONDS = 5.0
FORGIVEN = 3
"""So many lives between the two in a row may be chance, or somebody who tries out what a kill does;
more are a process that needs a second to find out that it cannot work."""
FIRST_WAIT_SECONDS = 0.1
MAX_WAIT_SECONDS = 5.0

Settled = Callable[[Child], Awaitable[None]]
"""Returns once a new process does its work."""


class Backoff:
    """How long to wait before the next start: not at all, unless lives are too short."""

    def __init__(self) -> None:
        self._short_lives = 0

    def after(self, lived_seconds: float) -> float:
        if lived_seconds >= SHORT_SECONDS:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        steps = self._short_lives - (0 if lived_seconds < EARLY_SECONDS else FORGIVEN)
        return min(FIRST_WAIT_SECONDS * 2.0 ** (steps - 1), MAX_WAIT_SECONDS) if steps > 0 else 0.0


class Slot:
    """Runs `command` once, always. `changed` is called after each start and each end."""

    def __init__(self, command: Command, clock: Clock, changed: Callable[[], None]) -> None:
        self.command = command
        self.deaths = 0
        """How often a process here ended without being asked to."""
        self._backoff = Backoff()
        self._clock = clock
        self._changed = changed
        self._current: Child | None = None
        # Or a death and a replacement at one moment would fill the slot twice.
        self._filling = asyncio.Lock()
        self._children: list[Child] = []
        self._log = structlog.get_logger()

    @property
    def pids(self) -> list[int]:
        """Two while one process takes over from another."""
        return [child.pid for child in self._children if child.running]

    async def keep(self) -> None:
        """Never returns; a process that ends is followed by the next at once."""
        while True:
            async with self._filling:
                self._current = watched = self._current or await self._start()
            status = await watched.ended()
            self._forget(watched)
            if self._current is watched:
                self._current = None
                self.deaths += 1
                wait = self._backoff.after(self._clock.now() - watched.born)
                self._log.warning(
                    "a process ended and is started again",
                    action="child_restart",
                    child=self.command.role,
                    pid=watched.pid,
                    status=status,
                    wait_seconds=wait,
                )
                await asyncio.sleep(wait)

    async def replace(self, settled: Settled) -> None:
        """Starts the next process, and only when it does its work lets the current one drain."""
        fresh = await self._start()
        await settled(fresh)
        if not fresh.running:
            self._forget(fresh)
            return
        async with self._filling:
            former, self._current = self._current, fresh
        if former is not None:
            await former.stop()

    async def stop(self) -> None:
        """Ends what runs, within the command's limit. `keep` must have been cancelled before."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(child.stop())
        self._children.clear()

    def kill(self) -> None:
        for child in self._children:
            child.kill()

    async def _start(self) -> Child:
        child = await Child.start(self.command, self._clock)
        self._children.append(child)
        self._changed()
        return child

    def _forget(self, child: Child) -> None:
        if child in self._children:
            self._children.remove(child)
        self._changed()
