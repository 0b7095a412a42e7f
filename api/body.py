"""Reads a request's body whole, on raw ASGI routes, and bounds what all bodies hold together."""

from starlette.types import Message, Receive

from shared.errors import Overloaded, RequestTooLarge

COUNTED_ABOVE_BYTES = 1 << 20
"""A smaller body with a declared length is not worth counting."""
MAX_BODIES_BYTES = 1 << 30
"""Of the large bodies that this process is reading, or has read and not yet answered."""


class ClientLeft(Exception):
    """The client closed the connection before its request was complete: nobody to answer."""


class Bodies:
    """The large bodies of one process."""

    def __init__(self, most: int = MAX_BODIES_BYTES) -> None:
        self.held = 0
        self._most = most

    def take(self, size: int) -> None:
        """Raises Overloaded."""
        self.held += size
        if self.held > self._most:
            raise Overloaded(
                "The gateway is reading too much at once; try again shortly.", code="queue_full"
            )


class CountedBody:
    """A `receive` for a body that is large, or whose length nobody has declared."""

    def __init__(self, receive: Receive, bodies: Bodies | None, limit: int) -> None:
        """`bodies` is None for a body that is passed on as it comes, and never held."""
        self._receive = receive
        self._bodies = bodies
        self._limit = limit
        self._size = 0

    async def __call__(self) -> Message:
        """Raises RequestTooLarge or Overloaded."""
        message = await self._receive()
        size = len(message.get("body", b""))
        self._size += size
        if self._bodies is not None:
            self._bodies.take(size)
        if self._size > self._limit:
            raise too_large(self._limit)
        return message

    def release(self) -> None:
        """Once its request is answered."""
        if self._bodies is not None:
            self._bodies.held -= self._size


def too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {limit} bytes.")


async def read_body(receive: Receive) -> bytes:
    """The whole body. Its size is bounded by the outermost layer. Raises ClientLeft."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body
    parts: list[bytes] = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise ClientLeft
