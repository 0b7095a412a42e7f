"""Which port each server of a data directory listens on, remembered from start to start.

Free ports are taken below the range from which the system gives ports to outgoing connections.
Inside it a client that keeps trying to reach a server which is down can be given the server's own
port, connect to itself, and keep the server from coming back.
"""

import random
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec

LOWEST_PORT = 15_000
HIGHEST_PORT = 32_000  # Linux gives 32768 and up to outgoing connections, macOS 49152 and up
ATTEMPTS = 200


class PortBook:
    """The ports of one data directory, in a file of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports = self._read()

    def port_for(self, name: str, *, avoid: Iterable[int] = ()) -> int:
        """The port it had last time, if that is free now; else another free one."""
        remembered = self._ports.get(name)
        if remembered is not None and remembered not in avoid and is_free(remembered):
            return remembered
        taken = {*avoid, *self._ports.values()}
        self._ports[name] = _free_port(taken)
        self._path.write_bytes(msgspec.json.encode(self._ports))
        return self._ports[name]

    def _read(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections that ended a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(taken: set[int]) -> int:
    for _ in range(ATTEMPTS):
        port = random.randint(LOWEST_PORT, HIGHEST_PORT)  # noqa: S311  # not a secret
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT}")
