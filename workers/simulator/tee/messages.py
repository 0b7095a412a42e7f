"""What the simulated machines have answered, in digests: the memory that signatures are made from."""

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass

from shared.clock import Clock
from workers.simulator.tap import Tap
from workers.simulator.tee.faults import kind_of

KEPT_SECONDS = 1200.0
"""As vllm-proxy keeps its signatures."""
KEPT_MESSAGES = 100_000
"""About 60 MB; more calls in twenty minutes, and the oldest lose their signatures."""
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True, kw_only=True)
class Message:
    """One answer that its client got whole."""

    profile: str
    """Whose machine answered."""
    call_id: str
    chat_id: str
    model: str
    request: str
    """SHA-256 of the body, as hex; so is `response`."""
    response: str
    streamed: bool
    at: float
    tries: int = 0
    """How often its signature was asked for."""

    @property
    def fault(self) -> str:
        return kind_of(self.model) or ""


class Messages:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, Message] = OrderedDict()

    def note(
        self,
        *,
        profile: str,
        call_id: str,
        chat_id: str,
        model: str,
        body: bytes,
        tap: Tap,
        streamed: bool,
    ) -> None:
        """Remembers an answer; a stream only where `[DONE]` has left."""
        if streamed and not tap.last.endswith(DONE):
            return
        message = Message(
            profile=profile,
            call_id=call_id,
            chat_id=chat_id,
            model=model,
            request=hashlib.sha256(body).hexdigest(),
            response=tap.sha256 if streamed else _of_whole(tap),
            streamed=streamed,
            at=self._clock.now(),
        )
        self._kept[chat_id] = message
        self._forget()

    def find(self, profile: str, chat_id: str) -> Message | None:
        message = self._kept.get(chat_id)
        if message is None or message.profile != profile:
            return None
        return None if self._clock.now() - message.at > KEPT_SECONDS else message

    def _forget(self) -> None:
        oldest = self._clock.now() - KEPT_SECONDS
        while self._kept:
            first = next(iter(self._kept.values()))
            if len(self._kept) <= KEPT_MESSAGES and first.at >= oldest:
                return
            self._kept.popitem(last=False)


def _of_whole(tap: Tap) -> str:
    """Where the bytes were kept, it is not they that are signed, but Python's dump of them."""
    if tap.kept is None:
        return tap.sha256
    return hashlib.sha256(json.dumps(json.loads(tap.kept)).encode()).hexdigest()
