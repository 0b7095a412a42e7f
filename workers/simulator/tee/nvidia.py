"""The simulated NRAS as a service: `POST /nras/v3/attest/gpu`, and its keys."""

import msgspec

from shared.clock import Clock
from workers.simulator.exchange import Exchange
from workers.simulator.problems import Refused
from workers.simulator.tee.nras import Nras, Payload, vice_of
from workers.simulator.tee.pki import Pki

AWAY = "nras-away"


class Nvidia:
    def __init__(self, pki: Pki, clock: Clock) -> None:
        self.nras = Nras(pki)
        self._clock = clock

    async def attest(self, exchange: Exchange) -> None:
        try:
            payload = msgspec.json.decode(await exchange.body(), type=Payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"Not evidence: {error}") from error
        vice = vice_of(payload)
        if vice == AWAY:
            raise Refused(503, "Simulated: NVIDIA's service is away.")
        answer = self.nras.attest(payload, now=self._clock.now(), vice=vice)
        await exchange.respond_json(200, answer)

    async def keys(self, exchange: Exchange) -> None:
        await exchange.respond_json(200, self.nras.keys())
