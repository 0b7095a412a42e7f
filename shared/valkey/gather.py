"""Gathers the script calls of one loop turn into one: Lua's own overhead is paid once for all.

A call of a script costs the server more than what most of ours do, so the scripts of the request
path take any number of jobs and answer for each.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from shared.valkey.client import Client, ValkeyAway

JOBS_PER_CALL = 100
"""Keys and arguments of one call stay far below Lua's limit of about 8,000."""

BYTES_PER_CALL = 8 << 20
"""So that no call keeps the server, or the connection, for long. A single item may be larger."""

Item = TypeVar("Item")


class Gatherer(Generic[Item]):
    """`call` sends one script call for several items; its answer is a list, one for each."""

    def __init__(
        self,
        call: Callable[[Client, Sequence[Item]], asyncio.Future[Any]],
        *,
        weigh: Callable[[Item], int] = lambda _item: 0,
    ) -> None:
        """`weigh` says how many bytes an item adds to its call."""
        self._call = call
        self._weigh = weigh
        self._waiting: list[tuple[Item, asyncio.Future[Any]]] = []

    def ask(self, client: Client, item: Item) -> asyncio.Future[Any]:
        """The item's own answer. Raises what the client raises, for all of its call alike."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send, client)
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((item, answer))
        return answer

    def _send(self, client: Client) -> None:
        waiting, self._waiting = self._waiting, []
        for some in self._calls(waiting):
            try:
                sent = self._call(client, [item for item, _ in some])
            except (ValkeyAway, ArithmeticError, TypeError, ValueError) as error:
                # The last three: one item cannot be packed. Nobody may wait for ever because of it.
                _fail(some, error)
            else:
                sent.add_done_callback(partial(_deliver, some))

    def _calls(
        self, waiting: list[tuple[Item, asyncio.Future[Any]]]
    ) -> Iterator[list[tuple[Item, asyncio.Future[Any]]]]:
        some: list[tuple[Item, asyncio.Future[Any]]] = []
        size = 0
        for one in waiting:
            weight = self._weigh(one[0])
            if some and (len(some) == JOBS_PER_CALL or size + weight > BYTES_PER_CALL):
                yield some
                some, size = [], 0
            some.append(one)
            size += weight
        yield some


def _deliver(some: list[tuple[Any, asyncio.Future[Any]]], sent: asyncio.Future[Any]) -> None:
    error = sent.exception()
    if error is not None:
        _fail(some, error)
        return
    for (_, answer), result in zip(some, sent.result(), strict=True):
        if not answer.done():  # its caller may have been cancelled
            answer.set_result(result)


def _fail(some: list[tuple[Any, asyncio.Future[Any]]], error: BaseException) -> None:
    for _, answer in some:
        if not answer.done():
            answer.set_exception(error)
