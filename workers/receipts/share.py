"""A share: what one provider may take of the process that makes receipts."""

import asyncio

CALLS_AT_ONCE = 50
MOST_WAITING = 8_000
PATIENCE_SECONDS = 8.0
"""The pause between two tries at which a call has been asked for five times."""


class Share:
    """What one provider may take of the process: it must not keep others from their receipts."""

    def __init__(self) -> None:
        self.calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self.waiting = 0

    def is_spent(self, pause: float) -> bool:
        """Whether too many of its calls wait, and this one has been asked for often enough."""
        return self.waiting > MOST_WAITING and pause >= PATIENCE_SECONDS
