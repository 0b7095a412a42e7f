"""A transport that joins the writes of one loop turn into one.

uvicorn writes an answer's head and its body apart, and uvloop hands each write to the kernel at
once: two system calls, and two packets, for every answer. Gathered for the rest of the turn they
are one. What has gathered always leaves before the connection is closed.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from typing_extensions import override

Data = bytes | bytearray | memoryview


class JoinedWrites(asyncio.Transport):
    """Stands in front of a connection's own transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Data] = []

    @override
    def write(self, data: Data) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    @override
    def writelines(self, list_of_data: Iterable[Data]) -> None:
        for data in list_of_data:
            self.write(data)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self._transport.is_closing():
            self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    @override
    def close(self) -> None:
        self._flush()
        self._transport.close()

    @override
    def abort(self) -> None:
        self._gathered.clear()
        self._transport.abort()

    @override
    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    @override
    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + sum(map(len, self._gathered))

    # The rest is the transport's own.

    @override
    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    @override
    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    @override
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @override
    def is_reading(self) -> bool:
        return self._transport.is_reading()

    @override
    def pause_reading(self) -> None:
        self._transport.pause_reading()

    @override
    def resume_reading(self) -> None:
        self._transport.resume_reading()

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)


def joined(transport: asyncio.BaseTransport) -> JoinedWrites:
    """uvloop's transports do not inherit from asyncio's, but are of the same shape."""
    return JoinedWrites(cast(asyncio.Transport, transport))
