"""Event logs: recorded ones replay to their quotes' registers, and every change is found."""

import json
from typing import Any

import pytest

from shared.attestation import quote as quotes
from shared.attestation.event_log import MAX_EVENTS, Replay, check_replay, replay
from tests.vectors import vector
from workers.simulator.tee.event_log import boot_log, replayed, runtime_event

COMPOSE, IMAGE = b"\x01" * 32, b"\x02" * 32


def log(*later: Any) -> list[dict[str, Any]]:
    booted = boot_log(name="a", compose_hash=COMPOSE, os_image_hash=IMAGE)
    return [dict(event.shown()) for event in (*booted, *later)]


REGISTERS = replayed(boot_log(name="a", compose_hash=COMPOSE, os_image_hash=IMAGE))


def status(entries: object, *, is_verified: bool = True) -> tuple[str, str]:
    found = check_replay(replay(tuple(entries)), REGISTERS, is_verified=is_verified)  # type: ignore[arg-type]
    return found.status, found.detail


def recorded(name: str) -> tuple[Replay, quotes.Quote]:
    document = json.loads(vector(name))
    report = document if "quote" in document else {"quote": document["intel_quote"], **document}
    events = report["event_log"]
    entries = json.loads(events) if isinstance(events, str) else events
    quote = quotes.parse(bytes.fromhex(report["quote"]))
    assert quote
    return replay(tuple(entries)), quote


@pytest.mark.parametrize(
    "name",
    [
        "near-model-ecdsa-addr/attestation_report.json",
        "dstack/quote-report.json",
        "dstack/tdx-lite-getquote.json",
    ],
)
def test_a_recorded_log_replays_to_all_four_registers(name: str):
    found, quote = recorded(name)
    assert check_replay(found, quote.rtmrs, is_verified=True).status == "pass"
    assert len(found.measurements("compose-hash")) == 1


def test_a_served_digest_may_be_empty_where_it_can_be_computed():
    document = json.loads(vector("dstack/tdx-lite-getquote.json"))
    runtime = [one for one in json.loads(document["event_log"]) if one["imr"] == 3]
    assert all(one["digest"] == "" for one in runtime)
    assert replay(tuple(runtime)).fault == ""


def test_what_an_application_writes_after_boot_is_no_boot_measurement():
    found, _ = recorded("dstack/quote-report.json")
    assert found.measurements("LIUM_MINER_HOTKEY") == ()
    later = runtime_event("compose-hash", b"\x09" * 32)
    assert replay(tuple(log(later))).measurements("compose-hash") == (COMPOSE,)


def test_a_boot_measurement_is_named_by_the_hashed_text():
    """Where a name ends is not hashed: `app:x` with `y` is `app` with `x:y`."""
    entries = log()
    at = next(n for n, one in enumerate(entries) if one["event"] == "os-image-hash")
    payload = bytes.fromhex(entries[at]["event_payload"])
    for cut in (b"a", b""):
        event = runtime_event("key", cut + b":" + payload)
        resplit = {**event.shown(), "event": f"key:{cut.decode()}", "event_payload": payload.hex()}
        found = replay((resplit,))
        assert found.fault == ""
        assert found.measurements("key") == (cut + b":" + payload,)


def test_readiness_cannot_be_renamed_away():
    ready = runtime_event("system-ready", b"a:b")
    resplit = {**ready.shown(), "event": "system-ready:a", "event_payload": b"b".hex()}
    forged = dict(runtime_event("compose-hash", COMPOSE).shown())
    found = replay((resplit, forged))
    assert found.fault == ""
    assert found.measurements("compose-hash") == ()


def changes(entries: list[dict[str, Any]], at: int, **members: Any) -> list[dict[str, Any]]:
    return [*entries[:at], {**entries[at], **members}, *entries[at + 1 :]]


BOOT, RUNTIME = 0, 10
"""Of the minted log: the first of the firmware's, and `app-id`."""


def test_the_honest_log_passes_and_waits_for_the_quote():
    assert status(log()) == ("pass", "all four registers")
    assert status(log(), is_verified=False)[0] == "unknown"
    assert check_replay(None, REGISTERS, is_verified=True).status == "unknown"


@pytest.mark.parametrize(
    ("at", "members", "told"),
    [
        (RUNTIME, {"event_payload": "ff"}, "digest is not of its name and payload"),
        (RUNTIME, {"event": "app-ie"}, "digest is not of its name and payload"),
        (RUNTIME, {"digest": "00" * 48}, "digest is not of its name and payload"),
        (RUNTIME, {"event_payload": "f"}, "payload cannot be read"),
        (RUNTIME, {"event_payload": None}, "payload cannot be read"),
        (RUNTIME, {"event_payload": "ff", "digest": ""}, "does not replay to the quote's RTMR3"),
        (RUNTIME, {"event_type": 0}, "it is no runtime event"),
        (RUNTIME, {"event_type": "134217729"}, "it is no runtime event"),
        (RUNTIME, {"event_type": None, "digest": ""}, "it is no runtime event"),
        (BOOT, {"event_type": 0x08000001}, ""),
        (BOOT, {"digest": ""}, "it has no digest"),
        (BOOT, {"digest": None}, "digest cannot be read"),
        (BOOT, {"digest": "00" * 49}, "digest cannot be read"),
        (BOOT, {"digest": "00" * 48}, "does not replay to the quote's RTMR0"),
        (BOOT, {"digest": "zz"}, "digest cannot be read"),
        (BOOT, {"imr": 1}, "does not replay to the quote's RTMR0, RTMR1"),
        (BOOT, {"imr": 4}, "names no register"),
        (BOOT, {"imr": -1}, "names no register"),
        (BOOT, {"imr": "0"}, "names no register"),
        (BOOT, {"imr": True}, "names no register"),
        (BOOT, {"event_payload": "anything", "event": 7}, ""),
    ],
)
def test_a_changed_entry_fails_unless_nothing_that_counts_was_changed(
    at: int, members: dict[str, Any], told: str
):
    found, detail = status(changes(log(), at, **members))
    assert found == ("fail" if told else "pass")
    assert told in detail


def test_a_boot_measurement_cannot_be_hidden_behind_another_type_of_event():
    """Or else what an application measures later would take its place."""
    entries = log(runtime_event("compose-hash", b"\x09" * 32), runtime_event("system-ready", b""))
    for at, one in enumerate(entries[:-2]):
        if one["event"] in ("compose-hash", "system-ready"):
            entries[at] = {"imr": 3, "event_type": 0, "digest": one["digest"]}
    found = replay(tuple(entries))
    assert "it is no runtime event" in found.fault
    assert found.measurements("compose-hash") == ()


@pytest.mark.parametrize("entry", [None, 1, "text", [], {}, {"imr": 3, "event_type": 0x08000001}])
def test_an_entry_of_no_form_fails(entry: object):
    assert status([*log(), entry])[0] == "fail"


def test_the_order_of_a_registers_events_counts():
    entries = log()
    entries[RUNTIME], entries[RUNTIME + 1] = entries[RUNTIME + 1], entries[RUNTIME]
    assert status(entries)[0] == "fail"


def test_a_log_is_not_read_without_end():
    assert status([{}] * (MAX_EVENTS + 1)) == ("fail", f"more than {MAX_EVENTS} events")


def test_a_short_digest_is_padded_on_the_right():
    short = {"imr": 0, "event_type": 1, "digest": "ab" * 20}
    padded = {"imr": 0, "event_type": 1, "digest": "ab" * 20 + "00" * 28}
    assert replay((short,)).registers == replay((padded,)).registers
