"""The way to every upstream: an HTTP/1.1 client behind httpx's transport interface.

Both doors lead here. The hot path has an `Endpoint` make its requests and awaits
`handle_async_request` itself; everything else uses an ordinary
`httpx.AsyncClient(transport=UpstreamTransport())`.

Guarantees:

- One call is one request on the wire. Nothing is ever sent twice: a kept-alive connection found
  closed is `StaleConnectionError`, for the caller's retry policy to judge.
- A body that was cut never looks complete. The one framing without an end of its own, a body
  that lasts until the connection closes, is complete only at an orderly close. Over TLS that is
  close_notify under uvloop; asyncio's own loop cannot tell it from a bare end of the stream.
- Every stage has its deadline, from `request.extensions["timeout"]` (httpx's `connect`, `read`,
  `write`, `pool` in seconds); without that, from the transport's defaults.
- Cancelling the caller closes the socket and frees its slot in the pool at once.

- A request with pins (`pinned`, or `extensions["pins"]`) goes over connections of its own, whose
  peer showed one of these keys; authority and name are checked as ever. Another key is
  `PeerNotAttested`, before any byte of the request is written.

Bodies are raw: ask for `accept-encoding: identity`. No proxy is used, `HTTP_PROXY` and its kin
are not read: where prompts go is the catalog's decision, not the environment's. HTTP/2, upgrades
and CONNECT are not spoken. A transport belongs to the event loop it is first used on.
"""

import ssl

import httpx
from typing_extensions import override

from workers.providers.http.connection import PeerNotAttested
from workers.providers.http.pool import HTTP_PORT, HTTPS_PORT, NO_PINS, Limits, Pool
from workers.providers.http.prepared import PINS, LeanResponse, PreparedRequest
from workers.providers.http.request import Origin, encode, origin_of

# Completions may think for minutes before their first byte; the caller's own total is tighter.
MAX_PINNED_POOLS = 64
"""Keys change with every boot of a machine: pools of keys that nobody asks for any more go."""
DEFAULT_TIMEOUT = httpx.Timeout(connect=10.0, read=600.0, write=30.0, pool=10.0)


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Kept-alive connections to any number of origins, one bounded pool for each."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        timeout: httpx.Timeout = DEFAULT_TIMEOUT,
    ) -> None:
        """`ssl_context` is set to offer http/1.1; by default it trusts what the system trusts."""
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._ssl_context.set_alpn_protocols(["http/1.1"])
        self._limits = limits or Limits()
        self._timeouts = timeout.as_dict()
        self._pools: dict[Origin, Pool] = {}  # origins come from the catalog: few, and lasting
        self._pinned: dict[tuple[Origin, frozenset[str]], Pool] = {}  # the end was asked for last
        self._retired: list[Pool] = []  # with connections that are still busy
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Connections open or being opened, idle ones included."""
        return sum(pool.slots for pool in self._all())

    def _all(self) -> list[Pool]:
        return [*self._pools.values(), *self._pinned.values(), *self._retired]

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if isinstance(request, PreparedRequest):
            origin, question = request.origin, request.question()
            timeouts, pins = request.timeouts or self._timeouts, request.pins
        else:
            origin, question = origin_of(request.url), encode(request)
            timeouts = request.extensions.get("timeout") or self._timeouts
            pins = request.extensions.get(PINS, NO_PINS)
        if pins:
            pool = self._pinned_pool(request, origin, pins)
        else:
            pool = self._pools.get(origin) or self._kept(request, origin)
        connection = pool.take() or await pool.acquire(request, timeouts)
        answer = await connection.ask(question, timeouts)
        return LeanResponse(answer, connection.network_stream)

    def _kept(self, request: httpx.Request, origin: Origin) -> Pool:
        pool = self._pools[origin] = self._new_pool(request, NO_PINS)
        return pool

    def _pinned_pool(self, request: httpx.Request, origin: Origin, pins: frozenset[str]) -> Pool:
        key = (origin, pins)
        pool = self._pinned.pop(key, None) or self._new_pool(request, pins)
        self._pinned[key] = pool
        if len(self._pinned) > MAX_PINNED_POOLS:
            oldest = self._pinned.pop(next(iter(self._pinned)))
            oldest.retire()
            self._retired = [one for one in (*self._retired, oldest) if one.slots]
        return pool

    def _new_pool(self, request: httpx.Request, pins: frozenset[str]) -> Pool:
        url = request.url
        if self._closed:
            raise httpx.ConnectError("the transport is closed", request=request)
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.UnsupportedProtocol("neither http nor https", request=request)
        secure = url.scheme == "https"
        if pins and not secure:
            raise PeerNotAttested("without TLS no key is shown", request=request)
        return Pool(
            host=url.raw_host.decode("ascii"),
            port=url.port or (HTTPS_PORT if secure else HTTP_PORT),
            ssl_context=self._ssl_context if secure else None,
            limits=self._limits,
            pins=pins,
        )

    @override
    async def aclose(self) -> None:
        self._closed = True
        for pool in self._all():
            pool.close()
