"""Asks the stores whether they answer, at most once a second however often somebody asks us."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from shared.clock import Clock

CHECK_SECONDS = 1.0
"""A store that takes longer is as good as away for a request."""
VALID_SECONDS = 1.0
"""Probes of many balancers must not become load on the stores."""

Check = Callable[[], Awaitable[bool]]
"""Whether one store answers. Must not raise for a store that is away."""


class StoreChecks:
    """One look serves everyone who asks during its second."""

    def __init__(self, checks: Mapping[str, Check], clock: Clock) -> None:
        self._checks = dict(checks)
        self._clock = clock
        self._looking = asyncio.Lock()
        self._seen: dict[str, bool] = {}
        self._valid_until = float("-inf")

    async def look(self) -> Mapping[str, bool]:
        """Store to whether it answers, by name; not older than a second. Never raises."""
        async with self._looking:
            now = self._clock.monotonic()
            if now >= self._valid_until:
                answers = await asyncio.gather(*(_ask(check) for check in self._checks.values()))
                self._seen = dict(zip(self._checks, answers, strict=True))
                self._valid_until = now + VALID_SECONDS
            return self._seen


async def _ask(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return False
