"""A provider that says exactly what a test wants, where the simulator cannot misbehave enough."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
STOP_SECONDS = 2.0


class Call:
    """One request, as it came, and the way back to whoever sent it."""

    def __init__(
        self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = head.decode("latin-1").split("\r\n")[1:]
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        self.body = body
        self.sent_bytes = 0
        self.left = asyncio.Event()
        """Set when the client has closed its end."""
        self._reader = reader
        self._writer = writer

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def row_id(self) -> str:
        return self.headers["x-client-request-id"]

    async def respond(self, document: object, status: int = 200, headers: str = "") -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        await self.send(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"{headers}content-length: {len(data)}\r\n\r\n".encode()
            + data
        )

    async def open_stream(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    async def event(self, document: object) -> None:
        """One event in an HTTP chunk of its own; bytes are sent as they are."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        event = b"data: " + data + b"\n\n"
        await self.send(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    async def say(self, *words: str, finish: bool = False) -> None:
        for word in words:
            await self.event(a_chunk(word))
        if finish:
            await self.event(a_chunk("", finish_reason="stop"))
            await self.event({**a_chunk(""), "choices": [], "usage": USAGE})
            await self.event(b"[DONE]")
            await self.send(b"0\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self.sent_bytes += len(data)

    def cut(self) -> None:
        self._writer.transport.abort()

    async def watch(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1024):
                pass
        self.left.set()


Script = Callable[[Call], Awaitable[None]]


class ScriptedProvider:
    """Answers its first call by the first script, and so on; the last serves all that follow."""

    def __init__(self, scripts: Sequence[Script], *, reads_body: bool, is_secure: bool) -> None:
        self._scripts = scripts
        self._reads_body = reads_body
        self._host = "https://localhost" if is_secure else "http://127.0.0.1"
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls: list[Call] = []
        self.called_at: list[float] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self._host}:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        head = await reader.readuntil(b"\r\n\r\n")
        body = await _body(head, reader) if self._reads_body else b""
        call = Call(head, body, reader, writer)
        script = self._scripts[min(len(self.calls), len(self._scripts) - 1)]
        self.calls.append(call)
        self.called_at.append(asyncio.get_running_loop().time())
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(call.watch())
            with contextlib.suppress(ConnectionError):
                await script(call)
            watch.cancel()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        async with asyncio.timeout(STOP_SECONDS):
            while self._tasks:  # noqa: ASYNC110  they leave one by one
                await asyncio.sleep(0)


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.partition(b":")[2]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


@contextlib.asynccontextmanager
async def scripted(
    *scripts: Script, reads_body: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedProvider]:
    """Without `reads_body` a script begins with the head alone."""
    provider = ScriptedProvider(scripts, reads_body=reads_body, is_secure=tls is not None)
    listener = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=tls)
    provider.port = listener.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        listener.close()
        await provider.stop()
        await listener.wait_closed()


def a_chunk(text: str, finish_reason: str | None = None, **members: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "created": 17,
        "model": "up",
        "choices": [choice],
        **members,
    }


def a_completion(text: str = "hello", **members: object) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "gen-1", "choices": [choice], "usage": USAGE, **members}


# ---- scripts


async def answers(call: Call) -> None:
    """As asked: whole or streamed."""
    if call.document.get("stream"):
        await call.open_stream()
        await call.say("hel", "lo", finish=True)
    else:
        await call.respond(a_completion())


def fails(status: int, headers: str = "") -> Script:
    async def script(call: Call) -> None:
        await call.respond({"error": {"message": "Simulated."}}, status, headers)

    return script


async def keeps_silent(call: Call) -> None:
    await call.left.wait()


async def speaks_and_stops(call: Call) -> None:
    await call.open_stream()
    await call.say("hel", "lo")
    await call.left.wait()


async def speaks_and_breaks(call: Call) -> None:
    await call.open_stream()
    await call.say("hel", "lo")
    call.cut()
