"""Chunks rewritten by their head come out as those that were decoded and encoded whole."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from shared.clock import StillClock
from shared.job import JobHeader
from shared.price import Price
from shared.run import unpack
from tests.unit.workers.jobs import a_header, an_attempt
from workers.inference.attempt import Attempt
from workers.inference.chat import ChatAnswer
from workers.inference.chunk_heads import RUN_AT_MOST, Choice, ChunkHead
from workers.inference.upstream_errors import AttemptFailed

HEAD: dict[str, object] = {
    "id": "gen-1",
    "object": "chat.completion.chunk",
    "created": 17,
    "model": "up/stream",
}
TEXTS = (
    "",
    "word",
    " ",
    "ünï ☃ 🌍",
    'say "choices": now',
    '"}],"choices":[{',
    "\\",
    "\n\r\t\0",
    "\u2028",
)
ASKED = a_header(stream=True, include_usage=True, asked_model="asked")
SEEDS = range(40)
FAILURES = (
    "The provider's stream carried an error.",
    "The provider's stream has an event without choices.",
    "The provider's answer is not valid JSON.",
)


class Rewriter:
    """A stream's answer and what it counted."""

    def __init__(self, header: JobHeader = ASKED) -> None:
        self.answer = ChatAnswer(header, provider_type="openai", clock=StillClock())
        self.attempt: Attempt = an_attempt(header, price=Price())

    def told(self, event: bytes) -> Any:
        """The event for the client, decoded; None where it gets none; or the failure."""
        try:
            out = unpack(b"".join(self.answer.chunks([event], self.attempt)))
        except AttemptFailed as failed:
            return failed.error.message
        if not out:
            return None
        assert out.startswith(b"data: ")
        assert out.endswith(b"\n\n")
        line = out[6:-2]
        assert not set(line) & set(b"\r\n"), "an event for the client is one line"
        return json.loads(line)

    @property
    def counted(self) -> tuple[object, ...]:
        attempt = self.attempt
        return attempt.deltas, attempt.characters, attempt.finish_reason, attempt.usage


def decoded(stream: bytes) -> list[Any]:
    return [json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\n\n") if event]


def rewritten(head: ChunkHead, event: bytes) -> tuple[bytes, list[Choice]] | None:
    """The short way's answer for one chunk."""
    tails = head.tails([event], 0)
    found = head.rewrite(tails) if tails else None
    return (unpack(found[0]), [rest.choices[0] for rest in found[1]]) if found else None


def taught(first: bytes) -> Rewriter:
    rewriter = Rewriter()
    rewriter.told(first)
    return rewriter


def dumps(document: object, style: int) -> bytes:
    """As providers do: compact or spaced, escaped or not, some with white space around."""
    if style == 0:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    if style == 1:
        return json.dumps(document).encode()
    return b" " + json.dumps(document, separators=(",", ":")).encode() + b" "


def plain(text: str = "word", **members: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {**HEAD, "choices": [choice], **members}


def some_delta(rng: random.Random) -> dict[str, object]:
    call = {"index": 0, "id": "call-1", "function": {"name": "f", "arguments": rng.choice(TEXTS)}}
    members: dict[str, object] = {
        "role": "assistant",
        "content": rng.choice([*TEXTS, None]),
        "reasoning_content": rng.choice([*TEXTS, None]),
        "refusal": rng.choice(TEXTS),
        "tool_calls": rng.choice([None, [call]]),
        "provider_metadata": {"choices": [], "id": rng.choice(TEXTS)},
    }
    return {name: members[name] for name in members if rng.random() < 0.3}


def some_choice(rng: random.Random) -> dict[str, object]:
    entry = {"token": rng.choice(TEXTS), "logprob": -1.5e-7, "bytes": [1, 2]}
    members: dict[str, object] = {
        "index": 0,
        "delta": some_delta(rng),
        "logprobs": rng.choice([None, {"content": [entry], "refusal": None}]),
        "finish_reason": rng.choice([None, None, "stop", "length"]),
    }
    return members if rng.random() < 0.9 else {"index": 0}


def some_chunk(rng: random.Random) -> dict[str, object]:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    after: dict[str, object] = {
        "usage": rng.choice([None, usage]),
        "system_fingerprint": rng.choice(TEXTS),
        "service_tier": "default",
        "error": rng.choice([None, None, {"message": "died"}]),
        "episode_id": "theirs",
        "model": "another",
    }
    extras = {name: after[name] for name in after if rng.random() < 0.15}
    choices: dict[str, object] = {
        "choices": [some_choice(rng) for _ in range(rng.choice([1, 1, 1, 1, 1, 0, 2]))]
    }
    members: list[dict[str, object]] = [HEAD, choices, extras]
    if rng.random() < 0.1:
        members.reverse()
    return {name: value for part in members for name, value in part.items()}


def some_events(rng: random.Random) -> Iterator[bytes]:
    style = rng.randrange(3)
    for _ in range(60):
        yield dumps(some_chunk(rng), style)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_shape_of_chunk_comes_out_as_the_ordinary_way_makes_it(seed: int) -> None:
    rng = random.Random(seed)
    stream, style = taught(dumps(plain(), rng.randrange(3))), rng.randrange(3)
    stream.told(dumps(plain(), style))
    for event in some_events(rng):
        ordinary = Rewriter()
        before = stream.counted
        assert stream.told(event) == ordinary.told(event), event
        assert ordinary.counted[0] == stream.counted[0] - before[0], event  # type: ignore[operator]


@pytest.mark.parametrize("seed", SEEDS)
def test_chunks_rewritten_together_come_out_as_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    events = [event for event in some_events(rng) if json.loads(event).get("error") is None]
    events = [event for event in events if Rewriter().told(event) not in FAILURES]
    sound = dumps(plain(), 0)
    together, singly = taught(sound), taught(sound)
    out = unpack(b"".join(together.answer.chunks(events, together.attempt)))
    one_by_one = [singly.answer.chunks([event], singly.attempt) for event in events]
    # The order of members may differ: it is the short way's or the ordinary one's.
    assert decoded(out) == decoded(unpack(b"".join(part for parts in one_by_one for part in parts)))
    assert together.counted == singly.counted


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_chunk_is_refused_by_both_ways_or_by_neither(seed: int) -> None:
    rng = random.Random(seed)
    sound = dumps(plain("ünï", logprobs=None, x={"y": ["é", 1.5]}), style=rng.randrange(2))
    stream = taught(sound)
    for _ in range(300):
        event = damaged(sound, rng)
        assert stream.told(event) == Rewriter().told(event), event
        stream.told(sound)


def damaged(event: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(event))
    piece = rng.choice(
        [b"", b'"', b"\\", b"{", b"}", b"]", b",", b"\xff", b"\n", b"\r", b"0", b" "]
    )
    return event[:at] + piece + event[at + rng.choice([0, 1, 1, 7]) :]


def test_the_head_really_is_used_and_passes_the_rest_on_unchanged() -> None:
    head = ChunkHead({"id": "ours", "model": "asked", "episode_id": "e"})
    head.learn(dumps(plain(), 0))
    event = dumps(plain("x", service_tier="default"), 0)
    found = rewritten(head, event)
    assert found is not None
    out, (choice,) = found
    assert choice.delta.content == "x"
    assert out.endswith(event[event.index(b'"choices":') :] + b"\n\n")
    assert json.loads(out[6:]) == {
        **plain("x", service_tier="default"), "id": "ours", "model": "asked", "episode_id": "e",
    }  # fmt: skip


@pytest.mark.parametrize("others", [[], [0], [RUN_AT_MOST], [5, 6, RUN_AT_MOST + 7]])
def test_a_long_run_with_other_heads_in_it_comes_out_in_order(others: list[int]) -> None:
    """More chunks than are rewritten at once, and a few that another server made."""
    chunks = [
        {**({"system_fingerprint": "other"} if at in others else {}), **plain(str(at))}
        for at in range(2 * RUN_AT_MOST + 3)
    ]
    rewriter = taught(dumps(plain("-"), 0))
    events = [dumps(chunk, 0) for chunk in chunks]
    out = decoded(unpack(b"".join(rewriter.answer.chunks(events, rewriter.attempt))))
    assert [chunk["choices"] for chunk in out] == [chunk["choices"] for chunk in chunks]
    assert ["system_fingerprint" in chunk for chunk in out] == [
        "system_fingerprint" in chunk for chunk in chunks
    ]


@pytest.mark.parametrize(
    "members",
    [
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        {"error": {"message": "died"}},
        {"id": "again"},
        {"model": "again"},
        {"episode_id": "again"},
        {"object": "again"},
    ],
    ids=lambda members: next(iter(members)),
)
def test_what_somebody_must_look_at_takes_the_ordinary_way(members: dict[str, object]) -> None:
    head = ChunkHead({"id": "ours"})
    head.learn(dumps(plain(), 0))
    again = json.dumps(members).encode()[1:]
    assert rewritten(head, dumps(plain(), 0)[:-1] + b"," + again) is None


def test_usage_null_does_not_keep_a_chunk_from_the_short_way() -> None:
    head = ChunkHead({"id": "ours"})
    head.learn(dumps(plain(usage=None), 0))
    assert rewritten(head, dumps(plain("x", usage=None), 0)) is not None


@pytest.mark.parametrize(
    "event",
    [
        b'{"id":"a","object":"b","model":"c","x":{"choices":[]},"choices":[]}',
        b'{"id":"a","object":"b","model":"c","x\\"choices":[],"choices":[]}',
        b'{"choices":[],"id":"a","object":"b","model":"c"}',
        b'{"id":"a","model":"c","choices":[]}',
        b'{"id":"a","object":"b","model":"c"}',
    ],
    ids=["nested", "in a name", "first", "no object", "none"],
)
def test_a_chunk_of_another_pattern_teaches_nothing(event: bytes) -> None:
    head = ChunkHead({"id": "ours"})
    head.learn(event)
    assert rewritten(head, event) is None


@pytest.mark.parametrize(
    "tail",
    [
        b"[" * 100_000,
        b'[{"delta":{"content":"\xff"}}]}',
        b'[{"delta":{},"x":"\xff"}]}',
        b'[{"delta":\n{}}]}',
        b'[{"delta":\r{}}]}',
        b'[{"delta":{},"x":"\x01"}]}',
        b'[{"delta":{},"x":"\x02"}]}',
        b'[{"delta":{},"x":"\x03"}]}',
        b"[{}]}",
        b"",
    ],
    ids=[
        "deep",
        "not UTF-8",
        "not UTF-8 aside",
        "LF",
        "CR",
        "run opens",
        "run goes on",
        "run closes",
        "no delta",
        "cut",
    ],
)
def test_what_could_harm_is_left_to_the_ordinary_way(tail: bytes) -> None:
    head = ChunkHead({"id": "ours"})
    sound = dumps(plain(), 0)
    head.learn(sound)
    assert rewritten(head, sound[: sound.index(b"[")] + tail) is None


@pytest.mark.parametrize("left_open", [b"{}", b"{},", b"1,", b"{} "])
def test_broken_chunks_that_mend_each_other_are_still_broken(left_open: bytes) -> None:
    sound = dumps(plain(), 0)
    head = ChunkHead({"id": "ours"})
    head.learn(sound)
    begins = sound[: sound.index(b"[")]
    first = begins + b'[{"delta":{}}],"x":[' + left_open
    for closes in (b"1}]}", b"{}]}", b"{}}]}"):
        for joins in (b",", b"", b"\n"):
            second = begins + closes + joins + b'{"choices":[{"delta":{}}]}'
            assert head.rewrite([first, second]) is None
