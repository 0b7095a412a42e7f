"""All slots of a gateway: filled role by role, counted, rolled over, and emptied in order."""

import asyncio
from collections.abc import Callable, Iterable

from api.cli.child import Command
from api.cli.slot import Settled, Slot
from shared.clock import Clock


class Fleet:
    """`changed` is called whenever a process starts or ends."""

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._slots: list[Slot] = []

    def add(self, command: Command, group: asyncio.TaskGroup) -> None:
        """Opens a slot that stays filled until the group is cancelled."""
        slot = Slot(command, self._clock, self._changed)
        self._slots.append(slot)
        group.create_task(slot.keep())

    def pids(self) -> dict[str, list[int]]:
        """Role to the processes that run now."""
        pids: dict[str, list[int]] = {}
        for slot in self._slots:
            pids.setdefault(slot.command.role, []).extend(slot.pids)
        return pids

    def failing(self, deaths: int) -> Command | None:
        """What has died at least so often, if anything has."""
        return next((slot.command for slot in self._slots if slot.deaths >= deaths), None)

    async def roll(self, roles: Iterable[str], settled: Settled) -> None:
        """Replaces every process of these roles, one after another."""
        for role in roles:
            for slot in self._of(role):
                await slot.replace(settled)

    async def stop(self, role: str) -> None:
        """Lets all processes of a role drain, side by side."""
        async with asyncio.TaskGroup() as group:
            for slot in self._of(role):
                group.create_task(slot.stop())

    def kill(self) -> None:
        """For an operator who will not wait for the drain."""
        for slot in self._slots:
            slot.kill()

    def _of(self, role: str) -> list[Slot]:
        return [slot for slot in self._slots if slot.command.role == role]
