"""What a chat call answers, before it meets the wire."""

import json
from itertools import islice
from typing import Any

import pytest

from workers.simulator.answer import Answer, answer
from workers.simulator.problems import Refused
from workers.simulator.profiles import Near, Phala, Profile, Vercel
from workers.simulator.request import read
from workers.simulator.shape import Shape

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL_ID = "0199d3a4c0de7000800000000000abcd"


def body(text: Any = "to be or not to be", **members: Any) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "sim/echo", "messages": messages, **members}).encode()


def ask(text: Any = "to be or not to be", **members: Any) -> Answer:
    return answer(read(body(text, **members)))


def shape(profile: Profile, **members: Any) -> Shape:
    request = read(body(**members))
    return Shape(profile=profile, request=request, call_id=CALL_ID, created=1)


def test_the_last_user_message_is_echoed() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "mm"},
        {"role": "user", "content": "second thing"},
        {"role": "assistant", "content": "mm"},
    ]
    said = ask(messages=messages)
    assert said.text("content") == "second thing"
    assert said.prompt_tokens == 7 + 3 * 5


def test_an_image_is_named_and_only_text_is_counted() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    said = ask([{"type": "text", "text": "what is this"}, image])
    assert said.text("content") == "what is this [image]"
    assert said.prompt_tokens == 3 + 3


def test_the_smaller_output_cap_ends_the_answer() -> None:
    said = ask(max_tokens=4, max_completion_tokens=2)
    assert said.text("content") == "to be"
    assert said.finish_reason == "length"
    assert said.usage["completion_tokens"] == 2


def test_an_answer_as_long_as_its_cap_has_stopped_by_itself() -> None:
    assert ask("three little words", max_tokens=3).finish_reason == "stop"


@pytest.mark.parametrize("stop", [" not", [" not", "zebra"], ["be or not", " not"]])
def test_a_stop_sequence_ends_the_answer_before_itself(stop: Any) -> None:
    said = ask(stop=stop)
    assert said.text("content") == ("to be or" if "be or not" not in stop else "to ")
    assert said.finish_reason == "stop"


def test_reasoning_is_counted_inside_the_completion_and_under_the_cap() -> None:
    said = ask("two words", reasoning_effort="low")
    assert said.usage["completion_tokens"] == 4 + 2
    assert said.usage["completion_tokens_details"] == {"reasoning_tokens": 4}
    cut = ask("two words", reasoning_effort="low", max_tokens=3)
    assert (cut.text("content"), cut.reasoning_tokens, cut.finish_reason) == ("", 3, "length")
    assert ask("two words", reasoning_effort="none").reasoning_tokens == 0


def test_the_first_tool_is_called_with_arguments_of_its_schema() -> None:
    said = ask(tools=[WEATHER, CLOCK])
    assert said.text("call") == "weather"
    assert json.loads(said.text("arguments")) == {"city": "…", "days": 0}
    assert said.finish_reason == "tool_calls"
    assert sum(token.kind == "arguments" for token in said.tokens) > 1


def test_a_named_tool_is_called_and_an_unknown_one_refused() -> None:
    chosen = {"type": "function", "function": {"name": "clock"}}
    said = ask(tools=[WEATHER, CLOCK], tool_choice=chosen)
    assert (said.text("call"), said.text("arguments")) == ("clock", "{}")
    with pytest.raises(Refused):
        ask(tools=[WEATHER], tool_choice=chosen)


def test_text_is_answered_when_tools_are_off_or_have_spoken() -> None:
    assert ask(tools=[WEATHER], tool_choice="none").text("call") == ""
    messages = [
        {"role": "user", "content": "and now"},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "12 degrees", "tool_call_id": "1"},
    ]
    assert ask(messages=messages, tools=[WEATHER]).text("content") == "and now"


def test_json_formats_are_json() -> None:
    said = ask('a "quoted" word', response_format={"type": "json_object"})
    assert json.loads(said.text("content")) == {"echo": 'a "quoted" word'}
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(ask(response_format=wanted).text("content")) == {"n": 0}
    with pytest.raises(Refused):
        ask(response_format={"type": "yaml"})


def test_text_without_end_repeats_the_answer_even_of_nothing() -> None:
    said = "".join(token.text for token in islice(ask("la di da").without_end(), 7))
    assert said == "la di da la di da la"
    assert [token.text for token in islice(ask("").without_end(), 2)] == [" sim", " sim"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"model": "\xff"}',
        b"[" * 100_000,
        b'{"model": "sim/echo", "messages": ' + b"[" * 100_000,
        b'{"model": "sim/echo"}',
        b'{"model": "sim/echo", "messages": []}',
        b'{"model": 1, "messages": [{"role": "user"}]}',
        b'{"model": "sim/echo", "messages": [{"role": "user", "content": 7}]}',
        b'{"model": "sim/echo", "messages": [{"role": "user"}], "max_tokens": 0}',
        b'{"model": "sim/echo", "messages": [{"role": "user"}], "top_logprobs": 21}',
    ],
)
def test_a_body_that_is_no_chat_request_is_a_400(raw: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read(raw)
    assert caught.value.problem.status == 400


def test_near_insists_on_no_aliasing() -> None:
    with pytest.raises(Refused):
        Near().check({}, read(body()))
    Near().check({b"x-no-aliasing": b"true"}, read(body()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gateway": {}},
        {"gateway": {"zeroDataRetention": True}},
        {"gateway": {"zeroDataRetention": True, "disallowPromptTraining": "true"}},
        {"gateway": "zeroDataRetention"},
    ],
)
def test_vercel_refuses_with_a_string_unless_both_flags_are_true(options: Any) -> None:
    with pytest.raises(Refused) as caught:
        Vercel().check({}, read(body(providerOptions=options)))
    assert Vercel().problem(caught.value.problem, CALL_ID) == {
        "error": "No ZDR (Zero Data Retention) providers available for model: sim/echo",
        "type": "no_providers_available",
        "statusCode": 400,
    }


def test_vercel_ids_are_ulids_that_keep_the_order_of_time() -> None:
    earlier, later = (Vercel().answer_id(f"{n:032x}") for n in (1 << 80, 1 << 81))
    assert earlier < later
    assert len(earlier) == len("gen_") + 26


def test_vercel_tells_its_route_and_its_cost() -> None:
    told = json.loads(Vercel().encode(shape(Vercel()).whole(ask("a b"))))
    gateway = told["choices"][0]["message"]["provider_metadata"]["gateway"]
    assert told["generationId"] == told["id"] == gateway["generationId"]
    assert told["usage"]["cost"] == float(gateway["cost"]) == 0.000007
    assert gateway["routing"]["finalProvider"] == "simulator"


def test_vercel_sends_usage_with_the_last_content_chunk() -> None:
    members = {"stream": True, "stream_options": {"include_usage": True}}
    closing = shape(Vercel(), **members).closing(ask("a b"), with_usage=True)
    assert len(closing) == 1
    assert "usage" in closing[0]
    assert "usage" not in shape(Vercel(), **members).opening()


def test_phala_dumps_its_chunks_with_spaces_and_escapes() -> None:
    assert Phala().event({"a": "é", "b": 1}) == b'data: {"a": "\\u00e9", "b": 1}\n\n\n'


def test_usage_has_its_own_chunk_only_when_asked_for() -> None:
    said = ask("a b")
    plain = shape(Profile(), stream=True)
    assert len(plain.closing(said, with_usage=True)) == 1
    assert "usage" not in plain.opening()
    asked = shape(Profile(), stream=True, stream_options={"include_usage": True})
    assert asked.opening()["usage"] is None
    assert asked.closing(said, with_usage=True)[-1]["choices"] == []
    assert len(asked.closing(said, with_usage=False)) == 1
