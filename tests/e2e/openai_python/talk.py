"""What the tests of the official client say, and what they make of its answers."""

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

TEXT = 'Grüße, 世界 🌍: tell me "choices": of a\nnew line'
MESSAGES: Any = [{"role": "user", "content": TEXT}]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def failure(client: OpenAI, model: str, **members: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model, messages=MESSAGES, **members)
    return caught.value
