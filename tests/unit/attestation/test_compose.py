"""Compose: the software is what three places say alike, and known only by an operator's lists."""

import hashlib
import json
from typing import Any

import pytest
from typing_extensions import override

from shared.attestation.policy import Policy
from tests.unit.attestation.minted import (
    COMPOSE,
    Machine,
    aci,
    chutes,
    details,
    examined,
    near_direct,
    statuses,
    tinfoil,
)
from workers.simulator.tee.event_log import Event, boot_event, replayed, runtime_event

HASH, OWN_WORD = Machine().compose_hash.hex(), "05" * 32
IMAGE = hashlib.sha256(b"\x07" * 48 + b"".join(replayed(Machine().log)[:3])).hexdigest()
OTHER = "00" * 32


def told(machine: Machine, **options: Any) -> dict[str, str]:
    return statuses(examined(near_direct(machine), **options))


def test_a_compose_is_what_the_log_and_the_configuration_measured():
    session = examined(near_direct())
    assert statuses(session)["compose_hash"] == "pass"
    assert session.compose_hash == HASH
    assert details(session)["compose_hash"] == (
        f"{HASH}, bound by RTMR3 and the configuration id; 1 of 2 images named by digest"
    )


def test_older_hosts_have_an_empty_configuration_id():
    session = examined(near_direct(Machine(config_id=bytes(48))))
    assert statuses(session)["compose_hash"] == "pass"
    assert "bound by RTMR3 alone" in details(session)["compose_hash"]


@pytest.mark.parametrize(
    ("machine", "detail"),
    [
        (Machine(compose=COMPOSE + " "), "the compose that was served is not the measured one"),
        (Machine(config_id=b"\1" + bytes(47)), "configuration id is of another compose"),
        (Machine(config_id=b"\2" + bytes(47)), "a configuration id of an unknown form (2)"),
        (Machine(config_id=bytes(47) + b"\1"), "a configuration id of an unknown form (0)"),
    ],
)
def test_three_places_must_say_the_same(machine: Machine, detail: str):
    session = examined(near_direct(machine))
    assert statuses(session)["compose_hash"] == "fail"
    assert detail in details(session)["compose_hash"]
    assert session.compose_hash == ""
    assert statuses(session)["compose_known"] == "unknown"


def test_a_second_measurement_after_boot_changes_nothing():
    later = (runtime_event("compose-hash", b"\x09" * 32),)
    assert told(Machine(later=later))["compose_hash"] == "pass"


@pytest.mark.parametrize("payload", [b"\x09" * 32, Machine().compose_hash])
def test_a_second_measurement_during_boot_fails(payload: bytes):
    session = examined(near_direct(Machine(earlier=(runtime_event("compose-hash", payload),))))
    assert statuses(session)["compose_hash"] == "fail"
    assert details(session)["compose_hash"] == "the boot measured 2 composes, not one"


def test_a_compose_that_is_not_shown_is_open():
    shown = Machine(shown={"info": {}})
    assert told(shown)["compose_hash"] == "unknown"


@pytest.mark.parametrize("generation", ["b", "c"])
def test_an_aci_gateway_need_not_show_its_compose(generation: str):
    session = examined(aci(generation))
    assert statuses(session)["compose_hash"] == "pass"
    assert "does not show the compose itself" in details(session)["compose_hash"]
    other = examined(aci(generation, Machine(shown={"app_compose": "another"})))
    assert statuses(other)["compose_hash"] == "fail"


@pytest.mark.parametrize("report", [chutes(), tinfoil()])
def test_it_does_not_apply_to_machines_without_dstack(report: object):
    assert statuses(examined(report))["compose_hash"] == "skip"


def test_without_an_event_log_it_is_open():
    without = near_direct(Machine(shown={"event_log": None}))
    assert statuses(examined(without))["compose_hash"] == "unknown"


def test_without_collateral_it_is_open_and_nothing_is_named():
    session = examined(near_direct(), collateral={})
    assert statuses(session)["compose_hash"] == "unknown"
    assert (session.compose_hash, session.os_image_hash) == ("", "")


@pytest.mark.parametrize(
    ("listed", "status"),
    [((), "unknown"), ((HASH,), "pass"), ((OTHER, HASH), "pass"), ((OTHER,), "fail")],
)
def test_a_compose_is_known_by_a_list(listed: tuple[str, ...], status: str):
    assert told(Machine(), policy=Policy(compose_hashes=listed))["compose_known"] == status


@pytest.mark.parametrize(
    ("listed", "image", "status"),
    [
        ((), "", "unknown"),
        ((), "dstack-dev-0.5.5", "unknown"),
        ((IMAGE,), "dstack-0.5.5", "pass"),
        ((IMAGE,), "dstack-dev-0.5.5", "fail"),
        ((IMAGE,), "dstack-nvidia-dev", "fail"),
        ((IMAGE,), "developer", "pass"),
        ((OWN_WORD, IMAGE), "dstack-0.5.5", "pass"),
        ((OWN_WORD,), "dstack-0.5.5", "fail"),
        ((OTHER,), "dstack-0.5.5", "fail"),
    ],
)
def test_an_image_is_known_by_a_list_unless_it_is_a_development_image(
    listed: tuple[str, ...], image: str, status: str
):
    machine = Machine(shown={"vm_config": json.dumps({"image": image})})
    session = examined(near_direct(machine), policy=Policy(os_images=listed))
    assert statuses(session)["os_image_known"] == status
    assert session.os_image_hash == IMAGE
    assert f"{IMAGE}, {OWN_WORD} by its own word" in details(session)["os_image_known"]
    is_said = "a development image by its own word" in details(session)["os_image_known"]
    assert is_said == ("-dev" in image)


class OwnSystem(Machine):
    """A genuine machine under an operating system of an attacker's, who writes RTMR3 as they like."""

    @property
    @override
    def log(self) -> tuple[Event, ...]:
        booted = tuple(boot_event(register, b"an attacker's") for register in range(3))
        return (*booted, *(event for event in super().log if event.imr == 3))


@pytest.mark.parametrize(
    ("images", "compose", "image"),
    [((OWN_WORD,), "unknown", "fail"), ((IMAGE, OWN_WORD), "unknown", "fail"),
     ((), "pass", "unknown")],
)  # fmt: skip
def test_an_operating_system_of_ones_own_is_not_known_by_its_word(
    images: tuple[str, ...], compose: str, image: str
):
    policy = Policy(compose_hashes=(HASH,), os_images=images)
    session = examined(near_direct(OwnSystem()), policy=policy)
    shown = statuses(session)
    assert (shown["rtmr_replay"], shown["compose_hash"]) == ("pass", "pass")
    assert (shown["compose_known"], shown["os_image_known"]) == (compose, image)
    assert "by the word of an unknown operating system" in details(session)["compose_known"]


def test_a_known_compose_on_a_known_image_rests_on_nobodys_word():
    policy = Policy(compose_hashes=(HASH,), os_images=(IMAGE,))
    session = examined(near_direct(), policy=policy)
    assert details(session)["compose_known"] == HASH
    assert statuses(session)["compose_known"] == "pass"
