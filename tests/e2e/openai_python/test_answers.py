"""Whole answers, as the official `openai` Python client reads them."""

import asyncio
import time
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.openai_python.talk import MESSAGES, TEXT

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_a_whole_answer_has_every_member_the_client_reads(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES)
    (choice,) = answer.choices
    assert choice.message.content == TEXT
    assert choice.message.role == "assistant"
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert answer.model == "sim_echo"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < 60
    assert isinstance(answer.system_fingerprint, str)
    assert answer.usage is not None
    usage = answer.usage
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details is not None


async def test_many_async_answers_come_back_to_those_who_asked(async_client: AsyncOpenAI) -> None:
    async def ask(number: int) -> str | None:
        answer = await async_client.chat.completions.create(
            model="sim_echo", messages=[{"role": "user", "content": f"number {number}"}]
        )
        return answer.choices[0].message.content

    answers = await asyncio.gather(*(ask(number) for number in range(50)))
    assert answers == [f"number {number}" for number in range(50)]


def test_an_output_cap_and_a_stop_word_end_the_answer(client: OpenAI) -> None:
    capped = client.chat.completions.create(
        model="sim_echo", messages=MESSAGES, max_completion_tokens=2
    )
    assert capped.choices[0].finish_reason == "length"
    assert capped.usage is not None
    assert capped.usage.completion_tokens == 2
    stopped = client.chat.completions.create(model="sim_echo", messages=MESSAGES, stop=["tell"])
    assert stopped.choices[0].message.content == TEXT.partition("tell")[0]


def test_logprobs_come_with_as_many_alternatives_as_asked_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sim_echo", messages=MESSAGES, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == TEXT
    assert all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in logprobs.content)


def test_image_parts_reach_the_model(client: OpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "what is on"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    answer = client.chat.completions.create(
        model="sim_echo", messages=[{"role": "user", "content": parts}]
    )
    assert answer.choices[0].message.content == "what is on [image]"


def test_reasoning_is_kept_in_message_and_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sim_echo", messages=MESSAGES, reasoning_effort="low"
    )
    assert answer.choices[0].message.model_extra is not None
    assert answer.choices[0].message.model_extra["reasoning_content"].startswith("Step step")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 4


@pytest.mark.parametrize("model", ["near_sim_chat", "phala_sim_chat", "vercel_sim_chat"])
def test_confidential_providers_answer_whole(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert (answer.model, answer.choices[0].message.content) == (model, TEXT)
