"""Streamed answers, as the official `openai` Python client reads them."""

from uuid import UUID

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.openai_python.talk import MESSAGES, TEXT, text_of


def test_a_stream_gives_the_text_in_pieces_and_no_usage_unasked(client: OpenAI) -> None:
    with client.chat.completions.create(model="sim_echo", messages=MESSAGES, stream=True) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["cache-control"] == "no-cache"
        assert stream.response.headers["x-accel-buffering"] == "no"
        chunks = list(stream)
    assert text_of(chunks) == TEXT
    assert len(chunks) > 3
    assert {(c.model, c.object) for c in chunks} == {("sim_echo", "chat.completion.chunk")}
    assert len({c.id for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(c.choices and c.usage is None for c in chunks)
    assert all(UUID((c.model_extra or {})["episode_id"]) for c in chunks)


async def test_an_async_stream_ends_with_usage_when_asked(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model="sim_echo",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    )
    async with stream:
        chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == TEXT
    assert [bool(c.usage) for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize(
    "model", ["near_sim_chat", "phala_sim_chat", "vercel_sim_chat", "sim_fault_no_usage"]
)
def test_streams_of_every_provider_have_one_usage_chunk_at_the_end(
    client: OpenAI, model: str
) -> None:
    with client.chat.completions.create(
        model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert text_of(chunks) == TEXT
    assert {c.model for c in chunks} == {model}
    assert [c.choices == [] for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_a_long_stream_arrives_whole(client: OpenAI) -> None:
    text = " ".join(f"wörd{number}" for number in range(5000))
    with client.chat.completions.create(
        model="sim_echo", messages=[{"role": "user", "content": text}], stream=True
    ) as stream:
        assert text_of(list(stream)) == text


def test_streamed_logprobs_spell_the_text(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="sim_echo", messages=MESSAGES, stream=True, logprobs=True, top_logprobs=2
    ) as stream:
        entries = [
            entry
            for chunk in stream
            for choice in chunk.choices
            if choice.logprobs is not None
            for entry in choice.logprobs.content or ()
        ]
    assert "".join(entry.token for entry in entries) == TEXT
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_a_fast_stream_of_many_megabytes_arrives_whole(client: OpenAI) -> None:
    """Faster than any client reads: the provider is held up, and the client is not dropped."""
    chunks = tokens = 0
    stream = client.chat.completions.create(
        model="sim_fault_huge",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        chunks += 1
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
    assert chunks > 1000
    assert tokens == 20_480
