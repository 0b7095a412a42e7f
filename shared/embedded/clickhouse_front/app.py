"""The bare ASGI application: reads a request, runs it on a thread, writes the engine's answer."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shared.embedded.clickhouse_front.engine import Answer, Engine
from shared.embedded.clickhouse_front.refusal import TOO_LARGE_BODY, Refusal
from shared.embedded.clickhouse_front.request import Request, read

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

THREADS = 8  # a statement holds one; the engine spreads a big one over the cores by itself
BODY_BYTES_LIMIT = 256 << 20  # our batches are some MB; more at once would be held in memory
_PLAIN: Headers = [(b"content-type", b"text/plain; charset=UTF-8")]

log = logging.getLogger(__name__)


class _ClientLeft(Exception):
    """The connection closed inside the body: what did arrive must not be run."""


class ClickHouseFront:
    """Opens the engine when the server starts and closes it when the server has drained."""

    def __init__(self, path: Path, *, database: str) -> None:
        self._path = path
        self._database = database
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="statement")
        self._engine: Engine | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and self._engine is not None:
            await self._serve(self._engine, scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._engine = Engine(self._path, database=self._database)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._threads.shutdown()
        self._engine.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD") and scope["path"] in ("/", "/ping"):
            await _write(send, 200, _PLAIN, b"Ok.\n")
        elif scope["method"] != "POST" or scope["path"] != "/":
            await _write(send, 404, _PLAIN, b"There is no handle for this. Use POST / or /ping.\n")
        else:
            await self._run(engine, scope, receive, send)

    async def _run(self, engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        try:
            body = await _body(receive)
            work = loop.run_in_executor(self._threads, _carry_out, engine, scope, body)
            request, answer = await work
        except _ClientLeft:
            log.warning("a client left inside its request; nothing was run")
        except Refusal as refusal:
            headers = [*_PLAIN, (b"x-clickhouse-exception-code", str(refusal.code).encode())]
            await _write(send, refusal.status, headers, refusal.body(engine.version))
        else:
            await _write(send, 200, _headers(engine, request, answer), answer.body)


def _carry_out(engine: Engine, scope: Scope, body: bytes) -> tuple[Request, Answer]:
    """On a thread, because decoding a large body takes its time as well."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    request = read(scope["query_string"].decode("latin-1"), headers, body)
    return request, engine.run(request)


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientLeft
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_BYTES_LIMIT:
            raise Refusal(TOO_LARGE_BODY, f"Body above {BODY_BYTES_LIMIT} bytes. (TOO_MANY_BYTES)")
        if not message.get("more_body", False):
            return b"".join(chunks)


def _headers(engine: Engine, request: Request, answer: Answer) -> Headers:
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"x-clickhouse-query-id", request.query_id.encode("latin-1", "replace")),
        (b"x-clickhouse-timezone", engine.timezone.encode()),
        (b"x-clickhouse-summary", json.dumps(answer.summary).encode()),
    ]
    if request.statement.returns_rows:
        headers.append((b"x-clickhouse-format", request.format.encode()))
    return headers


async def _write(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
