"""Tools and schemas, as the official `openai` Python client puts them together."""

import json
from typing import Any

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.e2e.openai_python.talk import MESSAGES, TEXT

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


@pytest.mark.parametrize(
    "tool_choice",
    ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}],
    ids=["auto", "required", "named"],
)
def test_a_tool_is_called_and_its_result_answered(client: OpenAI, tool_choice: Any) -> None:
    first = client.chat.completions.create(
        model="sim_echo", messages=MESSAGES, tools=[WEATHER], tool_choice=tool_choice
    )
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments).keys() == {"city", "days"}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "blue"}'}
    turn: Any = choice.message.model_dump(exclude_none=True)
    second = client.chat.completions.create(
        model="sim_echo", messages=[*MESSAGES, turn, result], tools=[WEATHER]
    )
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content


def test_a_streamed_tool_call_is_put_together_by_the_client(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="sim_echo", messages=MESSAGES, tools=[WEATHER]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.choices[0].message.tool_calls is not None
    (call,) = final.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments).keys() == {"city", "days"}


def test_a_json_object_is_one(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sim_echo", messages=MESSAGES, response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content or "") == {"echo": TEXT}


def test_a_pydantic_model_is_parsed_whole_and_streamed(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="sim_echo", messages=MESSAGES, response_format=Person
    )
    assert isinstance(parsed.choices[0].message.parsed, Person)
    with client.chat.completions.stream(
        model="sim_echo", messages=MESSAGES, response_format=Person
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed
