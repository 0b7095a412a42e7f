"""Kills processes of a running gateway at random moments, and sets the simulator's pace."""

import asyncio
import os
import random
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import httpx

from tests.e2e.started import StartedGateway, runs

STILL_ALIVE_SECONDS = 20.0
POLL_SECONDS = 0.02
UNPACED = {"first_token_ms": 0, "tokens_per_second": 0, "slow_first_byte_seconds": 30}


@asynccontextmanager
async def pace(gateway: StartedGateway, **changes: float) -> AsyncIterator[None]:
    """The simulator answers at another pace for the length of a block."""
    url = f"{gateway.ready.simulator_url}/_sim/config"
    async with httpx.AsyncClient(timeout=10) as client:
        (await client.post(url, json=changes)).raise_for_status()
        try:
            yield
        finally:
            (await client.post(url, json=UNPACED)).raise_for_status()


async def eventually(holds: Callable[[], bool], seconds: float) -> None:
    """Waits for what other processes do, while this one goes on. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(POLL_SECONDS)


OUTAGE_SECONDS = 3.0
"""Longer than a request waits for a store (2 s): some of these outages are felt."""
OUTAGES = 0.25
STORES = frozenset({"valkey", "clickhouse", "postgres"})


class Killer:
    """SIGKILL at random moments, each role as often as the others, in random order.

    A part of the stores' deaths are outages: the supervisor is held, and starts nothing meanwhile.
    """

    def __init__(self, gateway: StartedGateway, roles: Sequence[str], rng: random.Random) -> None:
        self._gateway = gateway
        self._roles = roles
        self._rng = rng
        self.kills: Counter[str] = Counter()
        self.outages = 0

    async def run(self, count: int, seconds: float) -> None:
        """`count` kills at random moments within the time; what dies is started again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        roles = [self._roles[n % len(self._roles)] for n in range(count)]
        self._rng.shuffle(roles)
        moments = sorted(self._rng.uniform(0, seconds) for _ in range(count))
        for role, moment in zip(roles, moments, strict=True):
            await asyncio.sleep(began + moment - loop.time())
            await self._kill_one(role)

    async def _kill_one(self, role: str) -> None:
        # The one before it may still be being replaced.
        await eventually(lambda: bool(self._alive(role)), STILL_ALIVE_SECONDS)
        is_outage = role in STORES and self._rng.random() < OUTAGES
        with self._held_supervisor() if is_outage else nullcontext():
            os.kill(self._rng.choice(self._alive(role)), signal.SIGKILL)
            self.kills[role] += 1
            if is_outage:
                self.outages += 1
                await asyncio.sleep(OUTAGE_SECONDS)

    @contextmanager
    def _held_supervisor(self) -> Iterator[None]:
        supervisor = self._gateway.process
        assert supervisor is not None
        supervisor.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            supervisor.send_signal(signal.SIGCONT)

    def _alive(self, role: str) -> list[int]:
        return list(filter(runs, self._gateway.ready.pids.get(role, [])))


FAILED_START = re.compile(rb'"action": "(api|worker)_failed".*catalog_watch\.py.{1,20}in start\b')


class Logs:
    """What the processes have logged since this was made."""

    def __init__(self, gateway: StartedGateway) -> None:
        self._folder = gateway.data_dir / "logs"
        self._seen = {file.name: file.stat().st_size for file in self._folder.glob("*.log")}

    def tracebacks(self) -> list[str]:
        """Lines that tell of an exception nobody expected.

        A process that starts while Postgres is away fails, and is started again.
        """
        return [
            f"{file.name}: {line[:2000].decode(errors='replace')}"
            for file in sorted(self._folder.glob("*.log"))
            for line in file.read_bytes()[self._seen.get(file.name, 0) :].splitlines()
            if b"Traceback" in line and not FAILED_START.search(line)
        ]


def resident_mib(pid: int) -> float:
    """The most memory a process has had. Linux only; 0 elsewhere."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    fields = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
    return int(fields.get("VmHWM", "0 kB").split()[0]) / 1024
