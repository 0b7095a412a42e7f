"""The headers that say what limits leave."""

from typing import Any

import pytest
from starlette.types import Message

from api.standing import duration, telling_refusal, telling_standing
from shared.account import RateLimits, key_account
from shared.errors import NotPermitted
from shared.valkey.terms import Left, RateLimited, Standing

NOW = 1_800_000_000.25


class Wire:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


async def test_an_answer_says_what_the_limits_of_requests_and_tokens_leave() -> None:
    wire, standing = Wire(), Standing(Left(60, 59, 59.5), Left(6000, 5800, 2.0))
    await telling_standing(wire.send, standing, NOW)(dict(START))
    assert wire.headers == {
        b"a": b"b",
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"59.5s",
        b"x-ratelimit-limit": b"60",
        b"x-ratelimit-remaining": b"59",
        b"x-ratelimit-reset": b"1800000060",
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"5800",
        b"x-ratelimit-reset-tokens": b"2s",
    }


@pytest.mark.parametrize(
    ("standing", "text"),
    [
        (Standing(soft_spent=(500_000_000, 10**9)), b"soft limit passed; spent 0.5 of 1 USD"),
        (Standing(soft_spent=(500_000_001, -1)), b"soft limit passed; spent 0.500000001 USD"),
    ],
)
async def test_a_soft_limit_is_a_warning(standing: Standing, text: bytes) -> None:
    wire = Wire()
    await telling_standing(wire.send, standing, NOW)(dict(START))
    assert wire.headers[b"x-ollm-budget-warning"] == text


async def test_a_refusal_by_a_limit_says_how_it_stands_and_another_says_nothing() -> None:
    wire, account = Wire(), key_account("default", "k", RateLimits())
    limited = RateLimited(account, Standing(Left(3, 0, 12.3)), 12.3)
    await telling_refusal(wire.send, limited, NOW)(dict(START))
    assert wire.headers[b"x-ratelimit-remaining"] == b"0"
    assert wire.headers[b"x-ratelimit-reset-requests"] == b"12.3s"
    await telling_refusal(wire.send, NotPermitted("no"), NOW)(dict(START))
    assert wire.headers == {b"a": b"b"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (59.9999, "1m0s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
