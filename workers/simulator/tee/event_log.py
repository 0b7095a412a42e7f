"""The event log of a simulated machine, and the registers that it replays to."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

RUNTIME_EVENT = 0x08000001
BOOT_EVENT = 0x80000009
RUNTIME_REGISTER = 3
REGISTER_BYTES = 48
APPLICATION_ID = hashlib.sha256(b"synthetic application").digest()[:20]
INSTANCE_ID_BYTES = 20
KEY_PROVIDER = b'{"name":"kms","id":"synthetic"}'


class Event(NamedTuple):
    imr: int
    event_type: int
    digest: str
    event: str
    event_payload: str

    def shown(self) -> dict[str, object]:
        return self._asdict()


def boot_log(*, name: str, compose_hash: bytes, os_image_hash: bytes) -> tuple[Event, ...]:
    """What dstack measures while it boots: firmware, kernel and image, then the application."""
    instance = hashlib.sha256(name.encode()).digest()[:INSTANCE_ID_BYTES]
    payloads: Mapping[str, bytes] = {
        "system-preparing": b"",
        "app-id": APPLICATION_ID,
        "compose-hash": compose_hash,
        "instance-id": instance,
        "boot-mr-done": b"",
        "mr-kms": hashlib.sha256(b"synthetic kms").digest(),
        "os-image-hash": os_image_hash,
        "key-provider": KEY_PROVIDER,
        "storage-fs": b"zfs",
        "system-ready": b"",
    }
    stages = [(imr, stage) for imr in range(3) for stage in ("firmware", "kernel", "separator")]
    booted = [boot_event(imr, stage.encode()) for imr, stage in stages]
    return (*booted, *(runtime_event(event, payload) for event, payload in payloads.items()))


def boot_event(imr: int, payload: bytes) -> Event:
    digest = hashlib.sha384(b"%d %s" % (imr, payload)).hexdigest()
    return Event(imr, BOOT_EVENT, digest, "", payload.hex())


def runtime_event(event: str, payload: bytes) -> Event:
    measured = struct.pack("<I", RUNTIME_EVENT) + b":" + event.encode() + b":" + payload
    digest = hashlib.sha384(measured).hexdigest()
    return Event(RUNTIME_REGISTER, RUNTIME_EVENT, digest, event, payload.hex())


def replayed(log: Iterable[Event]) -> tuple[bytes, ...]:
    """The four registers."""
    registers = [bytes(REGISTER_BYTES)] * 4
    for event in log:
        digest = bytes.fromhex(event.digest).ljust(REGISTER_BYTES, b"\0")
        registers[event.imr] = hashlib.sha384(registers[event.imr] + digest).digest()
    return tuple(registers)
