"""POST chat/completions and GET models: reads the call, notes it, answers or fails as asked."""

import asyncio
from typing import NamedTuple

from shared.clock import Clock
from shared.ids import new_id
from workers.simulator.answer import Answer, answer
from workers.simulator.card import cards
from workers.simulator.delivery import Delivery, Ticket, delivery
from workers.simulator.exchange import ClientClosed, Exchange
from workers.simulator.faults import PREFIXES, Fault, Faults, kind_of
from workers.simulator.ledger import STOPPED, Call, Ledger, Status
from workers.simulator.pace import Pacemaker
from workers.simulator.problems import Problem, Refused
from workers.simulator.profiles import Profile
from workers.simulator.request import ChatRequest, read
from workers.simulator.shape import Shape
from workers.simulator.tap import Tap
from workers.simulator.tee.tee import Tee

NAMES = frozenset(["sim/echo", "sim/chat", "sim_echo", "sim_chat"])
CALL_SECONDS = 3600.0  # nobody waits longer for a chat; bounds what a forgotten client can hold
CLIENT_ID_CHARACTERS = 128
MODELS_CREATED = 1_750_000_000


class Order(NamedTuple):
    """A request that was understood."""

    request: ChatRequest
    answer: Answer
    kind: str | None
    fault: Fault | None


class Chat:
    def __init__(
        self, *, ledger: Ledger, pacemaker: Pacemaker, faults: Faults, tee: Tee, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._tee = tee
        self._pacemaker = pacemaker
        self._faults = faults
        self._clock = clock

    async def complete(self, exchange: Exchange, profile: Profile) -> None:
        """Serves one call. Every call whose body was read whole is in the ledger."""
        body = await exchange.body()
        try:
            order = self._understood(exchange, profile, body)
        except Refused as refused:
            await self._refuse(exchange, profile, refused.problem)
            return
        call = self._begin(exchange, profile, order)
        exchange.tap = self._tee.tap(profile.name, order.request.model)
        ticket = self._ticket(exchange=exchange, profile=profile, order=order, call=call, body=body)
        await self._settle(delivery(ticket), order.fault)

    async def models(self, exchange: Exchange, profile: Profile) -> None:
        listed = cards([PREFIXES[0] + kind for kind in self._faults.kinds])
        entry = {"object": "model", "created": MODELS_CREATED, "owned_by": "simulator"}
        data = [{"id": card.name, **entry, **profile.model_members(card)} for card in listed]
        await exchange.respond_json(200, {"object": "list", "data": data})

    def _understood(self, exchange: Exchange, profile: Profile, body: bytes) -> Order:
        request = read(body)
        profile.check(exchange.headers, request)
        kind = kind_of(request.model)
        fault = None if kind is None else self._faults.find(kind)
        is_known = request.model in NAMES or self._tee.serves(profile.name, request.model)
        if fault is None and not is_known:
            raise Refused(404, "The model does not exist.", code="model_not_found", param="model")
        return Order(request, answer(request), kind, fault)

    def _begin(self, exchange: Exchange, profile: Profile, order: Order | None) -> Call:
        client_id = exchange.header("x-client-request-id")
        call_id, known = new_id(), client_id and client_id[:CLIENT_ID_CHARACTERS]
        begin, name = self._ledger.begin, profile.name
        if order is None:
            return begin(call_id=call_id, client_request_id=known, profile=name, fault="refused")
        return begin(
            call_id=call_id,
            client_request_id=known,
            profile=name,
            model=order.request.model,
            stream=order.request.streamed,
            fault=order.kind,
            prompt_tokens=order.answer.prompt_tokens,
        )

    def _ticket(
        self, *, exchange: Exchange, profile: Profile, order: Order, call: Call, body: bytes
    ) -> Ticket:
        shape = Shape(
            profile=profile,
            request=order.request,
            call_id=call.call_id,
            created=int(self._clock.now()),
        )
        return Ticket(
            exchange=exchange,
            profile=profile,
            shape=shape,
            answer=order.answer,
            pace=self._pacemaker.pace,
            call=call,
            ledger=self._ledger,
            body=body,
        )

    async def _refuse(self, exchange: Exchange, profile: Profile, problem: Problem) -> None:
        call = self._begin(exchange, profile, None)
        call.http_status = problem.status
        try:
            await exchange.respond_json(problem.status, profile.problem(problem, call.call_id))
        finally:
            self._ledger.end(call, "fault")

    async def _settle(self, sending: Delivery, fault: Fault | None) -> None:
        """Runs the delivery to its end, whatever that is, and notes it."""
        ledger, call = self._ledger, sending.ticket.call
        work = self._deliver(sending, fault)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                # Work that never waits needs nobody to watch the connection meanwhile.
                if fault is not None or sending.ticket.pace.waits:
                    await sending.exchange.attended(work)
                else:
                    await work
        except ClientClosed:
            ledger.end(call, "aborted")
            raise
        except TimeoutError:
            await sending.cut()
        finally:
            ledger.end(call, "fault", fault=STOPPED)  # unless something above has ended it

    async def _deliver(self, sending: Delivery, fault: Fault | None) -> None:
        status: Status = "completed"
        if latency := sending.ticket.pace.latency_ms:
            await asyncio.sleep(latency / 1000)
        if fault is None:
            await sending.send()
        else:
            status = await fault(sending)
        # No await since the last byte: who has read the answer finds it in the ledger, and its
        # signature with those who signed it.
        self._ledger.end(sending.ticket.call, status)
        if sending.exchange.tap is not None and (
            sending.ticket.call.stream or status == "completed"
        ):
            self._note(sending.ticket, sending.exchange.tap)

    def _note(self, ticket: Ticket, tap: Tap) -> None:
        call = ticket.call
        self._tee.messages.note(
            profile=ticket.profile.name,
            call_id=call.call_id,
            chat_id=ticket.profile.answer_id(call.call_id),
            model=call.model or "",
            body=ticket.body,
            tap=tap,
            streamed=call.stream,
        )
