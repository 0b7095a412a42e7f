"""Runs: what is packed comes out the same, and its size is known before."""

import random

import pytest

from shared import run

HEAD = b'data: {"id":"a","choices":'


def written_out(head: bytes, tails: list[bytes]) -> bytes:
    return b"".join(head + tail + b"\n\n" for tail in tails)


@pytest.mark.parametrize("tails", [[b"[]}"], [b"[1]}", b"[2]}"], [b"x"] * 50])
def test_a_run_unpacks_to_one_event_for_each_tail(tails: list[bytes]) -> None:
    packed = run.pack(HEAD, tails)
    assert run.unpack(packed) == written_out(HEAD, tails)
    assert run.unpacked_size(packed) == len(written_out(HEAD, tails))


def test_a_text_without_runs_is_itself() -> None:
    for text in (b"", b"data: 1\n\n", b": keep-alive\n\ndata: [DONE]\n\n"):
        assert run.unpack(text) is text
        assert run.unpacked_size(text) == len(text)


@pytest.mark.parametrize("seed", range(20))
def test_runs_and_plain_text_may_follow_each_other_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    packed, plain = [], []
    for _ in range(rng.randrange(8)):
        if rng.random() < 0.5:
            text = b"data: %d\n\n" % rng.randrange(10**6) * rng.randrange(3)
            packed.append(text)
            plain.append(text)
        else:
            head = b"h" * rng.randrange(40)
            tails = [b"t" * rng.randrange(30) for _ in range(rng.randrange(1, 9))]
            packed.append(run.pack(head, tails))
            plain.append(written_out(head, tails))
    together = b"".join(packed)
    assert run.unpack(together) == b"".join(plain)
    assert run.unpacked_size(together) == len(b"".join(plain))


def test_a_long_run_is_a_third_of_its_text() -> None:
    tails = [b'[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}'] * 64
    packed = run.pack(HEAD + b"x" * 160, tails)
    assert len(packed) * 3 < run.unpacked_size(packed)


def test_each_mark_is_recognized() -> None:
    assert all(run.holds_marks(b"a" + mark) for mark in (b"\x01", b"\x02", b"\x03"))
    assert not run.holds_marks(b"\x00\x04\n\r\t {}")
