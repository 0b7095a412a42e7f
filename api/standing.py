"""How the accounts of a request stand, as headers: what limits leave, and that a soft limit is passed.

OpenAI's `x-ratelimit-*` speak of the tightest limit of requests and of tokens, Otari's
`X-RateLimit-*` of requests. Times are durations in OpenAI's, epoch seconds in Otari's.
"""

import math
from collections.abc import Iterator

from starlette.types import Message, Send

from shared.errors import GatewayError
from shared.money import from_nano, plain
from shared.valkey.terms import Left, RateLimited, Standing

Headers = Iterator[tuple[bytes, bytes]]


def telling_standing(send: Send, standing: Standing, now: float) -> Send:
    """Adds the headers to the answer's head."""
    return _adding(send, list(_headers(standing, now)))


def telling_refusal(send: Send, error: GatewayError, now: float) -> Send:
    """The same for an error, where one of our limits is the reason."""
    if not isinstance(error, RateLimited):
        return send
    return _adding(send, list(_headers(error.standing, now)))


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return told


def _headers(standing: Standing, now: float) -> Headers:
    if (requests := standing.requests) is not None:
        yield from _openai(b"requests", requests)
        yield b"x-ratelimit-limit", b"%d" % requests.limit
        yield b"x-ratelimit-remaining", b"%d" % requests.left
        yield b"x-ratelimit-reset", b"%d" % math.ceil(now + requests.reset_seconds)
    if (tokens := standing.tokens) is not None:
        yield from _openai(b"tokens", tokens)
    if standing.soft_spent is not None:
        yield b"x-ollm-budget-warning", _warning(*standing.soft_spent)


def _openai(kind: bytes, left: Left) -> Headers:
    yield b"x-ratelimit-limit-" + kind, b"%d" % left.limit
    yield b"x-ratelimit-remaining-" + kind, b"%d" % left.left
    yield b"x-ratelimit-reset-" + kind, duration(left.reset_seconds).encode()


def duration(seconds: float) -> str:
    """As OpenAI writes it: `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    text = f"{round(rest, 3):g}s"
    return f"{int(minutes)}m{text}" if minutes else text


def _warning(spent: int, most: int) -> bytes:
    of = "" if most < 0 else f" of {plain(from_nano(most))}"
    return f"soft limit passed; spent {plain(from_nano(spent))}{of} USD".encode()
