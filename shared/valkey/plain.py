"""redis-py for work off the request path: one named client, its failures told as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.valkey.client import CommandRefused, ValkeyAway

CONNECT_SECONDS = 3.0
CALL_SECONDS = 10.0
"""The server answers in milliseconds; beyond this it is stopped or unreachable."""

PASSING = ("MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "OOM")
"""Errors of a server that fails over or is full: a later call may succeed."""


class GroupGone(ValkeyAway):
    """The stream or its group is not there: the server lost its data, or nobody made them yet."""


def plain_client(url: str, *, name: str) -> Redis:
    """A client with a pool of its own; it connects on first use, and again when it lost that."""
    client: Redis = Redis.from_url(
        # redis-py knows only the older names of the schemes.
        url.replace("valkey://", "redis://", 1).replace("valkeys://", "rediss://", 1),
        client_name=name,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_keepalive=True,
    )
    return client


@contextmanager
def failures() -> Iterator[None]:
    """Raises ValkeyAway where waiting may help (LOADING included), else CommandRefused."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError, TimeoutError) as error:
        raise ValkeyAway(f"Valkey cannot be asked: {type(error).__name__}") from error
    except ResponseError as error:
        if str(error).startswith(("NOGROUP", "no such key")):
            raise GroupGone(str(error)) from error
        if str(error).startswith(PASSING):
            raise ValkeyAway(f"Valkey cannot do it now: {str(error).split()[0]}") from error
        raise CommandRefused(str(error)) from error
    except RedisError as error:
        raise ValkeyAway(f"Valkey cannot be asked: {type(error).__name__}") from error
