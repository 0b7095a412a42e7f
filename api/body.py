"""Reads a request's body whole, on raw ASGI routes."""

from starlette.types import Receive


class ClientLeft(Exception):
    """The client closed the connection before its request was complete: nobody to answer."""


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
