"""The register of live processes: each renews its own entry, the commands and health checks read it.

Kept in the hash `ShardKeys.processes` of shard 0: process id → this entry as JSON.
"""

import os
import socket

import msgspec

RENEW_SECONDS = 1.0
"""How often a process renews its entry."""
SILENT_SECONDS = 10.0
"""An entry not renewed for so long belongs to a process that is gone, or hangs."""
FORGET_SECONDS = 600.0
"""An entry silent for so long is of interest to nobody and may be deleted."""


class ProcessEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself; later fields are optional. Times are epoch seconds."""

    role: str
    host: str
    pid: int
    started_at: float
    seen_at: float

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    def is_silent(self, now: float) -> bool:
        return now - self.seen_at > SILENT_SECONDS


def own_entry(role: str, *, started_at: float, now: float) -> ProcessEntry:
    """The entry of the calling process."""
    return ProcessEntry(
        role=role, host=socket.gethostname(), pid=os.getpid(), started_at=started_at, seen_at=now
    )


def decode_entry(value: bytes) -> ProcessEntry:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(value, type=ProcessEntry)
