"""Sends one chat answer, whole or as a stream, at the pace in force, and counts what left."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from typing_extensions import override

from workers.simulator.answer import Answer, Token
from workers.simulator.exchange import JSON, Exchange, Headers
from workers.simulator.ledger import Call, Ledger
from workers.simulator.pace import Pace
from workers.simulator.problems import Problem
from workers.simulator.profiles import Profile
from workers.simulator.shape import Shape

BATCH_TOKENS = 16  # per send when nothing paces: a system call costs more than encoding a chunk
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
_CONTENT = re.compile(rb'"content": ?"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a delivery is made of."""

    exchange: Exchange
    profile: Profile
    shape: Shape
    answer: Answer
    pace: Pace
    call: Call
    ledger: Ledger
    body: bytes
    """The request as it came: a flaky model knows a repeated one by it."""


class Delivery(ABC):
    """`answer` sends all of it. Faults use the steps: `open`, `write`, `close`."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.exchange = ticket.exchange

    @abstractmethod
    async def send(self, *, usage: bool = True, done: bool = True) -> None:
        """The whole answer. Without `done` a stream lacks what marks it as complete."""

    @abstractmethod
    async def open(self, *, promised: Iterable[Token] | None) -> None:
        """The head. `promised` is what a whole answer's length is declared for; None: no length."""

    async def cut(self) -> None:
        """Ends in the middle. The ledger knows before the client does."""
        self.ticket.ledger.end(self.ticket.call, "fault")
        await self.exchange.hang_up()

    @abstractmethod
    def piece(self, token: Token) -> bytes:
        """One token's bytes."""

    async def write(self, tokens: Iterable[Token], *, tokens_per_second: float = 0.0) -> None:
        """Sends tokens and counts each batch once it was written."""
        rate = self.ticket.pace.tokens_per_second or tokens_per_second
        supply = iter(tokens)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while batch := list(islice(supply, 1 if rate else BATCH_TOKENS)):
            await self.exchange.write(b"".join(map(self.piece, batch)))
            self.ticket.call.completion_tokens += len(batch)
            if rate:
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def refuse(self, problem: Problem, *, headers: Headers = ()) -> None:
        ticket = self.ticket
        ticket.call.http_status = problem.status
        payload = ticket.profile.problem(problem, ticket.call.call_id)
        own = ticket.profile.headers(ticket.call.call_id)
        await self.exchange.respond_json(problem.status, payload, headers=[*own, *headers])

    async def respond(self, body: bytes, *, kind: bytes = JSON) -> None:
        """A whole body that counts as no token."""
        self.ticket.call.http_status = 200
        headers = self.ticket.profile.headers(self.ticket.call.call_id)
        await self.exchange.respond(200, body, kind=kind, headers=headers)

    async def redirect(self, location: bytes) -> None:
        self.ticket.call.http_status = 302
        headers = [*self.ticket.profile.headers(self.ticket.call.call_id), (b"location", location)]
        await self.exchange.respond(302, b"", headers=headers)

    async def wait_for_first_token(self) -> None:
        if delay := self.ticket.pace.first_token_ms:
            await asyncio.sleep(delay / 1000)


class Whole(Delivery):
    """One JSON body."""

    @override
    async def send(self, *, usage: bool = True, done: bool = True) -> None:
        ticket = self.ticket
        await self.wait_for_first_token()
        if rate := ticket.pace.tokens_per_second:
            await asyncio.sleep(len(ticket.answer.tokens) / rate)
        body = ticket.profile.encode(ticket.shape.whole(ticket.answer, with_usage=usage))
        await self.respond(body)
        ticket.call.completion_tokens = len(ticket.answer.tokens)

    @override
    async def open(self, *, promised: Iterable[Token] | None) -> None:
        ticket = self.ticket
        planned = replace(ticket.answer, tokens=tuple(promised or ()))
        body = ticket.profile.encode(ticket.shape.whole(planned))
        content = _CONTENT.search(body)
        if content is None:
            raise RuntimeError("a chat completion without content has no place to be cut")
        length = [(b"content-length", b"%d" % len(body))] if promised is not None else []
        headers = [(b"content-type", JSON), *length]
        headers += ticket.profile.headers(ticket.call.call_id)
        ticket.call.http_status = 200
        await self.exchange.start(200, headers)
        await self.wait_for_first_token()
        await self.exchange.write(body[: content.end()])

    @override
    def piece(self, token: Token) -> bytes:
        return self.ticket.profile.encode(token.text)[1:-1]


class Stream(Delivery):
    """Server-sent events."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(ticket)
        self._unsent = b""

    @override
    async def send(self, *, usage: bool = True, done: bool = True) -> None:
        await self.open(promised=None)
        await self.write(self.ticket.answer.tokens)
        await self.close(usage=usage, done=done)

    @override
    async def open(self, *, promised: Iterable[Token] | None = None) -> None:
        await self.open_bare()
        # A model names its role when it speaks its first token: the two leave together.
        self._unsent = self.ticket.profile.event(self.ticket.shape.opening())

    async def open_bare(self) -> None:
        """The head without an opening event to follow."""
        profile, call = self.ticket.profile, self.ticket.call
        headers = [(b"content-type", EVENT_STREAM), *profile.stream_headers(call.call_id)]
        call.http_status = 200
        await self.exchange.start(200, headers)
        await self.wait_for_first_token()

    @override
    def piece(self, token: Token) -> bytes:
        event = self.ticket.profile.event(self.ticket.shape.delta(token))
        if self._unsent:
            event, self._unsent = self._unsent + event, b""
        return event

    async def raw(self, data: bytes, *, last: bool = False) -> None:
        await self.exchange.write(self._taken() + data, last=last)

    async def close(self, *, usage: bool = True, done: bool = True) -> None:
        closing = self.ticket.shape.closing(self.ticket.answer, with_usage=usage)
        events = b"".join(map(self.ticket.profile.event, closing))
        end = self._taken() + events + (DONE if done else b"")
        await self.exchange.write(end, last=True)

    def _taken(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent


def delivery(ticket: Ticket) -> Whole | Stream:
    return Stream(ticket) if ticket.call.stream else Whole(ticket)
