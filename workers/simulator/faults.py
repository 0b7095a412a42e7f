"""Everything that can go wrong with a provider, on demand, by the name of the model."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from itertools import islice

from workers.simulator.answer import Answer, Token
from workers.simulator.delivery import DONE, Delivery, Stream
from workers.simulator.ledger import Status
from workers.simulator.problems import Problem

Fault = Callable[[Delivery], Awaitable[Status]]
"""Says how the call ended: `completed` when the client got a whole, correct answer."""

PREFIXES = ("sim/fault/", "sim_fault_")
STATUSES = (400, 401, 404, 422, 429, 500, 503)
CODES = {
    400: "content_policy_violation",
    401: "invalid_api_key",
    404: "model_not_found",
    429: "rate_limit_exceeded",
}
RETRY_AFTER_SECONDS = 1
QUOTED_CHARACTERS = 64  # enough of a prompt for a leak of it to be found
GARBAGE_AFTER_TOKENS = 3
HUGE_TOKENS = 20 * 1024  # of a KiB each: 20 MiB, more than any sane answer
HUGE_TOKEN = " " + "sim." * 256
FLAKY_MEMORY = 10_000  # requests that have failed once and wait for their second attempt
_CUT = re.compile(r"cut_after_(\d{1,6})")


class Faults:
    """Knows every kind. Besides those it lists: any status 400-599, `cut_after_<tokens>`."""

    def __init__(self) -> None:
        self._failed_once: OrderedDict[bytes, None] = OrderedDict()
        self._kinds: dict[str, Fault] = {
            "slow_first_byte": slow_first_byte,
            "stall": stall,
            "malformed": malformed,
            "endless": endless,
            "no_usage": no_usage,
            "error_in_stream": error_in_stream,
            "error_200": error_200,
            "no_choices": no_choices,
            "empty_stream": empty_stream,
            "no_done": no_done,
            "flaky": self._flaky,
            "redirect": redirect,
            "huge": huge,
            "bad_content_type": bad_content_type,
        }

    @property
    def kinds(self) -> list[str]:
        return [*map(str, STATUSES), "cut_after_20", *self._kinds]

    def find(self, kind: str) -> Fault | None:
        if found := self._kinds.get(kind):
            return found
        if cut := _CUT.fullmatch(kind):
            return cut_after(int(cut[1]))
        if re.fullmatch(r"[45]\d\d", kind):
            return status(int(kind))
        return None

    async def _flaky(self, delivery: Delivery) -> Status:
        """Fails the first attempt of a body, answers the second, and so on."""
        digest = sha256(delivery.ticket.body).digest()
        if digest in self._failed_once:
            del self._failed_once[digest]
            await delivery.send()
            return "completed"
        self._failed_once[digest] = None
        if len(self._failed_once) > FLAKY_MEMORY:
            self._failed_once.popitem(last=False)
        await delivery.refuse(Problem(500, "Simulated: the first attempt fails."))
        return "fault"


def kind_of(model: str) -> str | None:
    """The fault a model name asks for."""
    for prefix in PREFIXES:
        if model.startswith(prefix):
            return model.removeprefix(prefix)
    return None


def status(code: int) -> Fault:
    """An error status. Like real ones, the message of a 400 or 422 quotes the prompt."""

    async def fault(delivery: Delivery) -> Status:
        message = f"Simulated fault {code}."
        if code in (400, 422):
            quoted = delivery.ticket.answer.text("content")[:QUOTED_CHARACTERS]
            message += f" Refused input: {quoted!r}"
        headers = [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)] if code == 429 else []
        await delivery.refuse(Problem(code, message, code=CODES.get(code)), headers=headers)
        return "fault"

    return fault


def cut_after(count: int) -> Fault:
    """The socket closes after so many tokens, without the end of the body."""

    async def fault(delivery: Delivery) -> Status:
        supply = delivery.ticket.answer.without_end()
        spoken, unspoken = list(islice(supply, count)), list(islice(supply, count + 1))
        await delivery.open(promised=[*spoken, *unspoken])
        await delivery.write(spoken)
        await delivery.cut()
        return "fault"

    return fault


async def slow_first_byte(delivery: Delivery) -> Status:
    await asyncio.sleep(delivery.ticket.pace.slow_first_byte_seconds)
    await delivery.send()
    return "completed"


async def stall(delivery: Delivery) -> Status:
    """Some tokens, then silence, then the end of the connection."""
    pace, supply = delivery.ticket.pace, delivery.ticket.answer.without_end()
    spoken = list(islice(supply, pace.stall_after_tokens))
    await delivery.open(promised=[*spoken, *islice(supply, 1)])
    await delivery.write(spoken)
    await asyncio.sleep(pace.stall_seconds)
    await delivery.cut()
    return "fault"


async def malformed(delivery: Delivery) -> Status:
    """Garbage among good lines: whoever skips it delivers a wrong answer as a whole one."""
    if isinstance(delivery, Stream):
        tokens = delivery.ticket.answer.tokens
        await delivery.open()
        await delivery.write(tokens[:GARBAGE_AFTER_TOKENS])
        await delivery.raw(b'data: {"id": "chatcmpl-sim-, "choices": [{"delta\n\n')
        await delivery.write(tokens[GARBAGE_AFTER_TOKENS:])
        await delivery.close()
    else:
        await delivery.respond(b'{"id": "chatcmpl-sim-, "choices": [{"mess')
    return "fault"


async def endless(delivery: Delivery) -> Status:
    """Tokens until the client closes, whatever output cap it asked for."""
    pace = delivery.ticket.pace
    await delivery.open(promised=None)
    supply = delivery.ticket.answer.without_end()
    await delivery.write(supply, tokens_per_second=pace.endless_tokens_per_second)
    return "fault"


async def no_usage(delivery: Delivery) -> Status:
    await delivery.send(usage=False)
    return "completed"


async def error_in_stream(delivery: Delivery) -> Status:
    """An error event midway, and `[DONE]` after it as vLLM sends it; whole: a plain 500."""
    problem = Problem(500, "Simulated: the engine died.")
    if not isinstance(delivery, Stream):
        await delivery.refuse(problem)
        return "fault"
    ticket = delivery.ticket
    await delivery.open()
    await delivery.write(ticket.answer.tokens[: max(1, len(ticket.answer.tokens) // 2)])
    error = ticket.profile.event(ticket.profile.problem(problem, ticket.call.call_id))
    await delivery.raw(error + DONE, last=True)
    return "fault"


async def error_200(delivery: Delivery) -> Status:
    ticket = delivery.ticket
    problem = Problem(500, "Simulated: an error under status 200.")
    await delivery.respond(
        ticket.profile.encode(ticket.profile.problem(problem, ticket.call.call_id))
    )
    return "fault"


async def no_choices(delivery: Delivery) -> Status:
    profile, bare = delivery.ticket.profile, delivery.ticket.shape.without_choices()
    if isinstance(delivery, Stream):
        await delivery.open_bare()
        await delivery.raw(profile.event(bare) + DONE, last=True)
    else:
        await delivery.respond(profile.encode(bare))
    return "fault"


async def empty_stream(delivery: Delivery) -> Status:
    if isinstance(delivery, Stream):
        await delivery.open_bare()
        await delivery.raw(DONE, last=True)
    else:
        await delivery.respond(b"")
    return "fault"


async def no_done(delivery: Delivery) -> Status:
    """A stream whose chunks are all there, and then a proper end of the body without `[DONE]`."""
    await delivery.send(done=False)
    return "fault" if isinstance(delivery, Stream) else "completed"


async def redirect(delivery: Delivery) -> Status:
    await delivery.redirect(b"https://elsewhere.invalid/v1/chat/completions")
    return "fault"


async def huge(delivery: Delivery) -> Status:
    ticket = delivery.ticket
    tokens = [Token("content", HUGE_TOKEN)] * HUGE_TOKENS
    answer = Answer(tokens, "stop", ticket.answer.prompt_tokens)
    delivery.ticket = replace(ticket, answer=answer)
    await delivery.send()
    return "completed"


async def bad_content_type(delivery: Delivery) -> Status:
    """What a load balancer in between says when it means well."""
    await delivery.respond(b"<html><body>Welcome</body></html>", kind=b"text/html")
    return "fault"
