"""An event log: what a machine says went into its runtime registers, replayed against its quote."""

import hashlib

import msgspec

from shared.attestation.encoding import from_hex, member, text_member
from shared.attestation.factor import Factor, failed, passed, unknown

REGISTERS = 4
REGISTER_BYTES = 48
MAX_EVENTS = 10_000
"""Thirty at boot; applications may append theirs."""
RUNTIME_EVENT = 0x08000001
RUNTIME_REGISTER = 3
READY = "system-ready"
"""After it applications write, under any name."""


class Replay(msgspec.Struct, frozen=True):
    """`fault`: why the log cannot be what it says it is; empty where it can."""

    registers: tuple[bytes, ...] = ()
    boot: tuple[bytes, ...] = ()
    """`name:payload` of each runtime event before the machine was ready, as it was hashed."""
    fault: str = ""

    def measurements(self, name: str) -> tuple[bytes, ...]:
        """The payloads of a boot event. It is told by the hashed text, in which `name` ends at a colon:
        where a served event draws the line between name and payload is nobody's word."""
        mark = name.encode() + b":"
        return tuple(one.removeprefix(mark) for one in self.boot if one.startswith(mark))


class _Fault(ValueError):
    """Of one entry."""


def replay(entries: tuple[object, ...]) -> Replay:
    if len(entries) > MAX_EVENTS:
        return Replay(fault=f"more than {MAX_EVENTS} events")
    registers, boot, is_booting = [bytes(REGISTER_BYTES)] * REGISTERS, [], True
    for at, entry in enumerate(entries):
        try:
            register, digest, measured = _read(entry)
        except _Fault as fault:
            return Replay(fault=f"event {at}: {fault}")
        registers[register] = hashlib.sha384(registers[register] + digest).digest()
        is_booting = is_booting and not measured.startswith(READY.encode() + b":")
        if measured and is_booting:
            boot.append(measured)
    return Replay(tuple(registers), tuple(boot))


def check_replay(log: Replay | None, rtmrs: tuple[bytes, ...], *, is_verified: bool) -> Factor:
    if log is None:
        return unknown("rtmr_replay", "event_log", "the report has no event log")
    if log.fault:
        return failed("rtmr_replay", "event_log", log.fault)
    pairs = zip(log.registers, rtmrs, strict=True)
    others = [f"RTMR{at}" for at, (ours, theirs) in enumerate(pairs) if ours != theirs]
    if others:
        told = f"the log does not replay to the quote's {', '.join(others)}"
        return failed("rtmr_replay", "event_log", told)
    if not is_verified:
        return unknown("rtmr_replay", "event_log", "the quote was not verified")
    return passed("rtmr_replay", "event_log", "all four registers")


def _read(entry: object) -> tuple[int, bytes, bytes]:
    """Its register, its digest, and the text behind it where that was measured."""
    register = member(entry, "imr")
    if type(register) is not int or not 0 <= register < REGISTERS:
        raise _Fault("it names no register")
    digest = from_hex(member(entry, "digest"))
    if digest is None or len(digest) > REGISTER_BYTES:
        raise _Fault("its digest cannot be read")
    if register != RUNTIME_REGISTER:
        if not digest:
            raise _Fault("it has no digest")
        return register, digest.ljust(REGISTER_BYTES, b"\0"), b""
    # Of another type it would be a digest without a name: a boot measurement could hide behind it.
    if member(entry, "event_type") != RUNTIME_EVENT:
        raise _Fault(f"it is no runtime event, and in RTMR{RUNTIME_REGISTER}")
    return register, *_runtime(entry, digest)


def _runtime(entry: object, served: bytes) -> tuple[bytes, bytes]:
    payload = from_hex(member(entry, "event_payload"))
    if payload is None:
        raise _Fault("its payload cannot be read")
    measured = text_member(entry, "event").encode() + b":" + payload
    digest = hashlib.sha384(RUNTIME_EVENT.to_bytes(4, "little") + b":" + measured).digest()
    if served and served.ljust(REGISTER_BYTES, b"\0") != digest:
        raise _Fault("its digest is not of its name and payload")
    return digest, measured
