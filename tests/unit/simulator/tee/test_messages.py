"""What the simulated machines remember: digests, for twenty minutes, and so many at most."""

import pytest

from shared.clock import StillClock
from workers.simulator.tap import Tap
from workers.simulator.tee import messages as remembered
from workers.simulator.tee.faults import kind_of, models, state_of, tries_before_signature
from workers.simulator.tee.messages import Message, Messages

DONE = b"data: [DONE]\n\n"


def noted(
    messages: Messages, *pieces: bytes, name: str = "a", streamed: bool = True
) -> Message | None:
    tap = Tap(keeps=True)
    for piece in pieces:
        tap.update(piece)
    messages.note(
        call_id=name, chat_id=name, model="sim/chat", body=b"{}", tap=tap, streamed=streamed
    )
    return messages.find(name)


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
    assert messages.find("a") is not None
    clock.advance(1)
    assert messages.find("a") is None


def test_the_oldest_are_forgotten_when_there_are_too_many(
    messages: Messages, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remembered, "KEPT_MESSAGES", 2)
    for name in ("a", "b", "c"):
        noted(messages, DONE, name=name)
    assert [messages.find(name) is None for name in ("a", "b", "c")] == [True, False, False]


def test_every_listed_model_is_known_and_others_are_not():
    assert all(kind_of(model) is not None for model in models())
    assert kind_of("tee-nonsense") is None
    assert kind_of("sim/chat") == kind_of("tee-honest") == ""


def test_a_signature_may_come_at_a_later_try():
    assert tries_before_signature("signature-404-3") == 3
    assert tries_before_signature("wrong-signature") == 0


def test_nobody_has_heard_of_a_platform_that_was_never_minted():
    assert state_of("FFFFFFFFFFFF") is None
