"""How much a running job may still generate before its hold must grow, or the job end.

At four fifths of what is held for, more is asked for: a provider may not heed the cap it was sent.
Where the budget does not bear more the job goes on to the end of what it holds, and no further.
"""

from shared.errors import NotPermitted
from shared.hold import output_rate, round_up
from shared.price import MILLION
from workers.held import HeldJob
from workers.inference.attempt import Attempt
from workers.inference.exchange import Recorder

ASK_AT = 0.8
GROWTH = 0.5


class Allowance:
    """Of one job."""

    def __init__(self, held: HeldJob, recorder: Recorder) -> None:
        self.held_nano = held.header.hold_nano
        self._held = held
        self._recorder = recorder
        self._tokens = 0
        self._is_last = False
        """The budget does not bear more."""

    def begin(self, cap: int) -> None:
        """A call is made with this cap, which is held for."""
        self._tokens = cap
        self._is_last = False

    async def keep(self, attempt: Attempt) -> None:
        """After a part of the answer. Raises NotPermitted: it must not go on."""
        seen = attempt.output_seen
        if seen >= self._tokens * ASK_AT and not self._is_last:
            await self._ask_for_more(attempt)
        if seen > self._tokens and self._is_last:
            raise NotPermitted("The budget was spent during the request.", code="budget_exceeded")

    async def _ask_for_more(self, attempt: Attempt) -> None:
        more = max(1, int(self._tokens * GROWTH))
        nano = round_up(output_rate(attempt.row.price) * more / MILLION)
        if await self._recorder.extend_hold(self._held, nano) == b"ok":
            self._tokens += more
            self.held_nano += nano
        else:
            self._is_last = True
