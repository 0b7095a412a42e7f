"""Joined writes: one turn, one write; and nothing is lost at a close."""

import asyncio

import pytest
from typing_extensions import override

from api.joined_writes import JoinedWrites


class Wire(asyncio.Transport):
    """What reaches the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    @override
    def is_closing(self) -> bool:
        return self.closed

    @override
    def close(self) -> None:
        self.closed = True

    @override
    def abort(self) -> None:
        self.closed = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def transport(wire: Wire) -> JoinedWrites:
    return JoinedWrites(wire)


async def test_writes_of_one_turn_leave_as_one(wire: Wire, transport: JoinedWrites) -> None:
    transport.write(b"head ")
    transport.writelines([b"body ", b"end"])
    assert wire.writes == []
    await asyncio.sleep(0)
    assert wire.writes == [b"head body end"]


async def test_a_later_turn_writes_anew(wire: Wire, transport: JoinedWrites) -> None:
    for part in (b"one", b"two"):
        transport.write(part)
        await asyncio.sleep(0)
    assert wire.writes == [b"one", b"two"]


async def test_closing_sends_what_has_gathered_first(wire: Wire, transport: JoinedWrites) -> None:
    transport.write(b"last words")
    transport.close()
    assert wire.writes == [b"last words"]
    assert wire.closed
    await asyncio.sleep(0)
    assert wire.writes == [b"last words"]


async def test_aborting_sends_nothing_more(wire: Wire, transport: JoinedWrites) -> None:
    transport.write(b"never")
    transport.abort()
    await asyncio.sleep(0)
    assert wire.writes == []
