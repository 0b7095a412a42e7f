"""What the simulated machines remember: digests, for twenty minutes, and so many at most."""

from pathlib import Path

import pytest

from shared.clock import StillClock
from workers.simulator.tap import Tap
from workers.simulator.tee import messages as remembered
from workers.simulator.tee.faults import (
    MESSAGE_FAULTS,
    SESSION_FAULTS,
    kind_of,
    models,
    state_of,
    tries_before_signature,
)
from workers.simulator.tee.messages import Message, Messages

DONE = b"data: [DONE]\n\n"


def noted(
    messages: Messages, *pieces: bytes, name: str = "a", streamed: bool = True
) -> Message | None:
    tap = Tap()
    for piece in pieces:
        tap.update(piece)
    messages.note(
        profile="near",
        call_id=name,
        chat_id=name,
        model="sim/chat",
        body=b"{}",
        tap=tap,
        streamed=streamed,
    )
    return messages.find("near", name)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def messages(clock: StillClock) -> Messages:
    return Messages(clock)


def test_a_stream_is_remembered_only_with_its_end(messages: Messages):
    assert noted(messages, b"data: {}\n\n") is None
    assert noted(messages, b"data: {}\n\n", DONE) is not None


def test_a_whole_answer_needs_no_mark(messages: Messages):
    assert noted(messages, b"{}", streamed=False) is not None


def test_the_digest_does_not_depend_on_the_pieces(messages: Messages):
    first = noted(messages, b"data: {}\n\n", DONE, name="a")
    second = noted(messages, b"data: {}\n\n" + DONE, name="b")
    assert first is not None
    assert second is not None
    assert first.response == second.response


def test_after_twenty_minutes_nobody_remembers(messages: Messages, clock: StillClock):
    noted(messages, DONE)
    clock.advance(1200)
    assert messages.find("near", "a") is not None
    clock.advance(1)
    assert messages.find("near", "a") is None


def test_another_services_machines_remember_nothing(messages: Messages):
    assert noted(messages, DONE) is not None
    assert messages.find("phala", "a") is None


def test_the_oldest_are_forgotten_when_there_are_too_many(
    messages: Messages, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remembered, "KEPT_MESSAGES", 2)
    for name in ("a", "b", "c"):
        noted(messages, DONE, name=name)
    assert [messages.find("near", name) is None for name in ("a", "b", "c")] == [True, False, False]


def test_the_page_about_receipts_names_every_fault_and_its_factor():
    page = (Path(__file__).parents[4] / "docs" / "receipts.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for fault, factor in {**SESSION_FAULTS, **MESSAGE_FAULTS}.items():
        assert any(f"`{fault}`" in row and factor in row for row in rows), fault


def test_every_listed_model_is_known_and_others_are_not():
    assert all(kind_of(model) is not None for model in models())
    assert kind_of("tee-nonsense") is None
    assert kind_of("sim/chat") == kind_of("tee-honest") == ""


def test_a_signature_may_come_at_a_later_try():
    assert tries_before_signature("signature-404-3") == 3
    assert tries_before_signature("wrong-signature") == 0


def test_nobody_has_heard_of_a_platform_that_was_never_minted():
    assert state_of("FFFFFFFFFFFF") is None
