"""The real metering process, as a test starts, kills and stops it."""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 15
SEAL_KEY = base64.b64encode(bytes(32)).decode()


@dataclass
class Process:
    """One Python process of ours; its log goes to a file."""

    child: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.child.kill()
        await self.child.wait()

    async def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.child.wait()

    async def has_started(self) -> bool:
        return "started" in self.actions()

    def actions(self) -> list[str]:
        """The `action` word of each line it logged."""
        lines = self.log.read_text().splitlines()
        return [line.split('"action": "')[1].split('"')[0] for line in lines if "action" in line]


@asynccontextmanager
async def process(module: str, folder: Path, **environment: str) -> AsyncIterator[Process]:
    """Runs `python -m module`; killed on leaving, if it still runs."""
    log = folder / f"{module}-{len(list(folder.iterdir()))}.log"
    with log.open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            env=dict(os.environ) | {"GATEWAY_SEAL_KEYS": SEAL_KEY} | environment,
            stdout=out,
            stderr=out,
        )
    running = Process(child, log)
    try:
        yield running
    finally:
        await running.kill()


async def until(met: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await met():  # noqa: ASYNC110  (what is waited for is in another process)
            await asyncio.sleep(0.05)
