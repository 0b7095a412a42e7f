"""The yardstick: a bare proxy, uvicorn and aiohttp, that checks one key and relays bytes untouched.

It is the least that a Python gateway on these libraries can do. What the gateway costs on top is
the queue, sealing, holds, spend rows and everything else that the pass-through does not have.
"""

import argparse
import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn
import uvloop

API_KEY = "sk-bench"
BACKLOG = 4096
READ_SECONDS = 120

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class PassThrough:
    """A raw ASGI app; `open` must have been called inside the loop."""

    def __init__(self, upstream: str) -> None:
        self._url = f"{upstream}/chat/completions"
        self._expected = f"Bearer {API_KEY}".encode()
        self._headers = {"authorization": "Bearer up", "content-type": "application/json"}

    def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=False),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=READ_SECONDS),
        )

    async def close(self) -> None:
        await self._session.close()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if dict(scope["headers"]).get(b"authorization") != self._expected:
            await _answer(send, 401, b"{}")
            return
        body = await _whole_body(receive)
        async with self._session.post(self._url, data=body, headers=self._headers) as response:
            if b'"stream":true' in body or b'"stream": true' in body:
                await _relay(response, send)
            else:
                await _answer(send, response.status, await response.read())


async def _whole_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _relay(response: aiohttp.ClientResponse, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for chunk in response.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def serve(listener: socket.socket, upstream: str) -> None:
    """Returns after SIGTERM or SIGINT."""
    app = PassThrough(upstream)
    app.open()
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        backlog=BACKLOG,
    )
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        await app.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--fd", type=int, required=True, help="a bound TCP socket to serve on")
    options.add_argument("--upstream", required=True, help="what ends in /v1")
    given = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(socket.socket(fileno=given.fd), given.upstream))


if __name__ == "__main__":
    main()
