"""The simulator's own endpoints under /_sim: its pace and its ledger."""

import msgspec

from workers.simulator.exchange import Exchange
from workers.simulator.ledger import Ledger
from workers.simulator.pace import Pacemaker
from workers.simulator.problems import Refused

PAGE_CALLS = 1_000
PAGE_CALLS_MOST = 10_000  # about 4 MB of JSON


class Control:
    def __init__(self, *, ledger: Ledger, pacemaker: Pacemaker) -> None:
        self._ledger = ledger
        self._pacemaker = pacemaker

    async def show_pace(self, exchange: Exchange) -> None:
        await exchange.respond_json(200, self._pacemaker.pace)

    async def change_pace(self, exchange: Exchange) -> None:
        """Replaces the members named in the body, for calls that begin from now on."""
        body = await exchange.body()
        try:
            change = msgspec.json.decode(body, type=dict[str, object])
            self._pacemaker.pace = self._pacemaker.pace.changed(change)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"Not a pace: {error}") from error
        await self.show_pace(exchange)

    async def page(self, exchange: Exchange) -> None:
        after = _number(exchange, "after", 0)
        limit = min(_number(exchange, "limit", PAGE_CALLS), PAGE_CALLS_MOST)
        calls = self._ledger.page(after=after, limit=limit)
        last = calls[-1].n if calls else after
        await exchange.respond_json(200, {"calls": calls, "next_after": last})

    async def summary(self, exchange: Exchange) -> None:
        await exchange.respond_json(200, self._ledger.summary())

    async def reset(self, exchange: Exchange) -> None:
        self._ledger.reset()
        await exchange.respond_json(200, self._ledger.summary())


def _number(exchange: Exchange, name: str, default: int) -> int:
    text = exchange.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Refused(400, "Not a number of calls.", param=name)
    return int(text)
