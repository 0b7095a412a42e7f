"""The HTTP server of one API process, and the order in which it leaves.

A drain, begun by SIGTERM or SIGINT:

1. The drain flag is set, in the signal handler: readiness answers 503, and every answer says
   `connection: close`.
2. The listening socket is closed: other processes that share it take the new connections.
3. For `LINGER_SECONDS` idle connections stay open, and requests that arrive on them, or on one
   accepted at the last moment, are served: a rolling restart fails nobody.
4. Idle connections are closed; busy ones close with the end of their answers, and a request that
   still comes on one is answered 503 (`draining`). Running requests have `drain_seconds` for
   that; then they are cancelled, and cancel their jobs.
5. The application ends: the queue's inbox is given up, the loops stop, the stores are closed.
"""

import asyncio
import signal
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from api.drain import Drain
from api.http_protocol import BoundedProtocol

LINGER_SECONDS = 0.3
"""Longer than a client's way from deciding to send to our reading it."""
BACKLOG = 4096
"""Connections the kernel holds while the loop is busy; it may cap this (net.core.somaxconn)."""
KEEP_ALIVE_SECONDS = 75
"""Longer than the idle limit of common balancers and SDK pools, so that they close first."""


def server_config(app: ASGIApp, *, drain_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        # A cut stream is meant to end unfinished, which uvicorn takes for an error; what is one is
        # logged by the outermost layer and by the lifespan.
        log_level="critical",
        access_log=False,
        server_header=False,
        # Keys may be bound to addresses: only the socket tells a client's, never a header.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket of our own. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def inherit(descriptor: int) -> socket.socket:
    """A listening socket that the supervisor shares among its API processes.

    uvicorn's own `fd` option takes every socket for a Unix one, which costs TCP_NODELAY.
    """
    return socket.socket(fileno=descriptor)


class Server(uvicorn.Server):
    """See the order above."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain.begin()
        super().handle_exit(sig, frame)
        if sig == signal.SIGTERM:
            # uvicorn raises what it caught again at the end; a drain that was asked for and done
            # is a success, and must exit like one.
            self._captured_signals.clear()

    @override
    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._drain.failed

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.begin()
        self._stop_listening(sockets or ())
        await asyncio.sleep(LINGER_SECONDS)
        self._drain.refuse()
        await super().shutdown(sockets)

    def _stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        for server in self.servers:
            server.close()
        for shared in sockets:
            shared.close()
