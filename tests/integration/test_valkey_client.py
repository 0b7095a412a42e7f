"""When the multiplexer gives a connection up: a server that is silent, not one that is busy."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from shared.valkey import client as module
from shared.valkey.client import AnswerLost, open_client

ANSWER_SECONDS = 0.2


class SlowServer:
    """Speaks just enough RESP: +OK to whatever is asked, but for GET, which it answers as told."""

    def __init__(self) -> None:
        self.pieces = 0
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            words = await _command(reader)
            if words[0] != b"GET":
                writer.write(b"+OK\r\n")
            elif self.pieces:
                await self._drip(writer)
            else:
                await asyncio.Event().wait()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        async with asyncio.timeout(2):
            while self._tasks:  # noqa: ASYNC110  they leave one by one
                await asyncio.sleep(0)

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"$%d\r\n" % self.pieces)
        for _ in range(self.pieces):
            await asyncio.sleep(ANSWER_SECONDS / 4)
            writer.write(b"x")
            await writer.drain()
        writer.write(b"\r\n")


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowServer]:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.05)
    slow = SlowServer()
    listener = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    slow.port = listener.sockets[0].getsockname()[1]
    yield slow
    listener.close()
    await slow.stop()
    await listener.wait_closed()


async def ask(server: SlowServer) -> object:
    url = f"redis://127.0.0.1:{server.port}/0"
    async with asyncio.timeout(10), open_client(url, name="t") as opened:
        opened._answer_seconds = ANSWER_SECONDS
        return await opened.call(b"GET", b"a")


async def test_an_answer_that_takes_long_to_arrive_is_waited_for(server: SlowServer) -> None:
    server.pieces = 20  # five times as long as the client waits for a sign of life
    assert await ask(server) == b"x" * 20
    assert server.connections == 1


async def test_a_server_that_says_nothing_is_left(server: SlowServer) -> None:
    with capture_logs() as logs, pytest.raises(AnswerLost):
        await ask(server)
    assert "valkey_silent" in [line["action"] for line in logs]
