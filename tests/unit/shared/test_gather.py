"""Gathering: the items of one loop turn share a call, as far as it can carry them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from shared.valkey.client import Client, Disconnected
from shared.valkey.gather import BYTES_PER_CALL, JOBS_PER_CALL, Gatherer

NOBODY = Client.__new__(Client)


class Server:
    """Answers each item with itself."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, client: Client, items: Sequence[int]) -> asyncio.Future[Any]:
        self.calls.append(list(items))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_result([f"answer {item}" for item in items])
        return answer


async def test_items_of_one_turn_share_a_call_and_each_gets_its_own_answer() -> None:
    server = Server()
    gatherer: Gatherer[int] = Gatherer(server)
    answers = await asyncio.gather(*(gatherer.ask(NOBODY, item) for item in range(5)))
    assert answers == [f"answer {item}" for item in range(5)]
    assert server.calls == [[0, 1, 2, 3, 4]]


async def test_a_call_has_only_so_many_items() -> None:
    server = Server()
    gatherer: Gatherer[int] = Gatherer(server)
    await asyncio.gather(*(gatherer.ask(NOBODY, item) for item in range(2 * JOBS_PER_CALL + 1)))
    assert [len(call) for call in server.calls] == [JOBS_PER_CALL, JOBS_PER_CALL, 1]


async def test_a_call_has_only_so_many_bytes_but_for_an_item_that_is_larger_by_itself() -> None:
    server = Server()
    gatherer: Gatherer[int] = Gatherer(server, weigh=lambda item: item)
    half, whole = BYTES_PER_CALL // 2, 2 * BYTES_PER_CALL
    items = [half, half, 1, whole, 2, 3]
    await asyncio.gather(*(gatherer.ask(NOBODY, item) for item in items))
    assert server.calls == [[half, half], [1], [whole], [2, 3]]


async def test_without_a_connection_all_are_told() -> None:
    def away(client: Client, items: Sequence[int]) -> asyncio.Future[Any]:
        raise Disconnected("there is no connection")

    gatherer: Gatherer[int] = Gatherer(away)
    asked = [gatherer.ask(NOBODY, item) for item in range(3)]
    for one in asked:
        with pytest.raises(Disconnected):
            await one
