"""The synthetic TEE's endpoints: reports and signatures of every shape, with their faults."""

import asyncio

import msgspec

from workers.simulator.exchange import JSON, Exchange
from workers.simulator.pace import Pacemaker
from workers.simulator.problems import Refused
from workers.simulator.profiles import Profile
from workers.simulator.tee.aci_gateway import RECEIPT_PREFIX
from workers.simulator.tee.faults import kind_of, tries_before_signature
from workers.simulator.tee.messages import Message
from workers.simulator.tee.tee import Tee

GARBAGE = b'{"intel_quote": "04000200'
NOT_FOUND = "not_found_error"
SIGNATURE_ERRORS = {"error_code": "SIGNATURE_UNSUPPORTED", "message": "Simulated."}
HONEST_MODEL = "sim/chat"
"""Whose report is shown where no model was named."""


class Endpoints:
    def __init__(self, tee: Tee, pacemaker: Pacemaker) -> None:
        self._tee = tee
        self._pacemaker = pacemaker

    async def report(self, exchange: Exchange, profile: Profile) -> None:
        model = self._model(exchange)
        if not await self._withheld(exchange, model):
            body = self._tee.report(profile.name, exchange.query, model=model)
            await exchange.respond(200, body)

    async def signature(self, exchange: Exchange, profile: Profile) -> None:
        message = self._message(profile, exchange.last_segment)
        if message.fault == "signature-error":
            await exchange.respond_json(200, SIGNATURE_ERRORS)
            return
        signatory = self._tee.signatories[profile.name]
        await exchange.respond_json(200, signatory.signature(message, exchange.query))

    async def attestation(self, exchange: Exchange, profile: Profile) -> None:
        """ACI's own."""
        model = self._model(exchange)
        if not await self._withheld(exchange, model):
            gateway = self._tee.aci[profile.name]
            report = gateway.attestation(exchange.query, fault=kind_of(model) or "")
            await exchange.respond_json(200, report)

    async def receipt(self, exchange: Exchange, profile: Profile) -> None:
        """By the receipt's id or the answer's."""
        named = exchange.last_segment
        if named.startswith(RECEIPT_PREFIX):
            named = profile.answer_id(named.removeprefix(RECEIPT_PREFIX))
        message = self._message(profile, named)
        await exchange.respond_json(200, self._tee.aci[profile.name].receipt(message))

    async def session(self, exchange: Exchange, profile: Profile) -> None:
        session = self._tee.aci[profile.name].session(exchange.last_segment)
        if session is None:
            raise Refused(404, "No such session.", type=NOT_FOUND)
        await exchange.respond_json(200, session)

    async def roots(self, exchange: Exchange) -> None:
        await exchange.respond(200, msgspec.json.encode(self._tee.pki.roots))

    def _model(self, exchange: Exchange) -> str:
        """Raises Refused (404)."""
        model: str = exchange.query.get("model", HONEST_MODEL)
        if kind_of(model) is None:
            raise Refused(404, "The model does not exist.", code="model_not_found", param="model")
        return model

    def _message(self, profile: Profile, chat_id: str) -> Message:
        """Raises Refused where its signature is not there: not yet, never, or not for this model."""
        message = self._tee.messages.find(profile.name, chat_id)
        if message is None:
            raise Refused(404, "No such signature.", type=NOT_FOUND)
        message.tries += 1
        if message.fault == "signature-500":
            raise Refused(500, "Simulated: no signature.")
        is_late = message.tries <= tries_before_signature(message.fault)
        if is_late or message.fault == "signature-never":
            raise Refused(404, "The signature is not there yet.", type=NOT_FOUND)
        return message

    async def _withheld(self, exchange: Exchange, model: str) -> bool:
        """Whether no report was sent, on purpose."""
        match kind_of(model):
            case "report-500":
                raise Refused(500, "Simulated: no report.")
            case "report-garbage":
                await exchange.respond(200, GARBAGE, kind=JSON)
            case "report-stall":
                seconds = self._pacemaker.pace.stall_seconds
                await exchange.attended(asyncio.sleep(seconds))
                await exchange.hang_up()
            case _:
                return False
        return True
