"""Unit: the guard over the unit tests itself holds."""

import asyncio
import socket
import time

import blockbuster
import pytest

from shared.embedded import record


def test_a_unit_test_cannot_connect_a_socket() -> None:
    with (
        socket.socket() as probe,
        pytest.raises(AssertionError, match="must not open a socket"),
    ):
        probe.connect(("127.0.0.1", 9))


async def test_our_code_cannot_block_the_event_loop() -> None:
    await asyncio.sleep(0)
    with pytest.raises(blockbuster.BlockingError):
        record.command_name(1)
    time.sleep(0)  # noqa: ASYNC251  # not our code: only that is watched
