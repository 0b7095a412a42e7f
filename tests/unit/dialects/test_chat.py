"""The check of POST /v1/chat/completions as tables: what passes, and what is wrong with the rest."""

import json
from typing import Any

import msgspec
import pytest

from shared.dialects import chat
from shared.dialects.faults import MAX_DEPTH
from shared.dialects.request import tags_or_user_agent
from shared.errors import GatewayError, InvalidRequest

USER = {"role": "user", "content": "Hello"}
UUID7 = "01890a5d-ac96-774b-bcce-b302099a8057"


def body(**fields: Any) -> bytes:
    """A good body with these fields on top; a field set to `...` is left out."""
    whole = {"model": "sim_echo", "messages": [USER], **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def messages(*given: Any) -> bytes:
    return body(messages=list(given))


def ours(**fields: Any) -> bytes:
    return body(**{f"ollm::{name}": value for name, value in fields.items()})


def nested(depth: int) -> bytes:
    """A good body of exactly this many levels."""
    deep = b"[" * (depth - 1) + b"]" * (depth - 1)
    return b'{"model":"m","messages":[{"role":"user","content":"x"}],"deep":%b}' % deep


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}

GOOD = [
    body(),
    body(temperature=0, top_p=1, presence_penalty=-2.5, frequency_penalty=2),
    body(temperature=None, top_p=None, stop=None, tools=None, stream=None, n=None, user=None),
    body(max_tokens=0, max_completion_tokens=2**31 - 1, seed=-(2**31), n=1),
    body(stop=[]),
    body(stop=["a", "b", "c", "d", "e"]),
    body(reasoning_effort="none of your business", verbosity="low"),
    *(body(service_tier=tier) for tier in ("auto", "default", "priority", "flex")),
    body(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}),
    body(stream_options={}),
    body(tools=[], tool_choice="auto", parallel_tool_calls=False),
    body(tools=[TOOL, {"type": "web_search"}, {"type": "custom", "custom": {"name": "x"}}]),
    body(tool_choice={"type": "function", "function": {"name": "f"}}),
    body(response_format={"type": "text"}),
    body(response_format={"type": "json_object"}),
    body(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}),
    body(logprobs=True, top_logprobs=5, logit_bias={"5": 1}, metadata={"a": "b"}, store=False),
    body(something_new={"any": ["thing", 2**64]}),
    messages({"role": "developer", "content": "x"}, {"role": "system", "content": "y"}, USER),
    messages({"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}),
    messages({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}),
    messages({"role": "user", "content": []}),
    messages({"role": "user", "name": "bob", "content": "x"}),
    messages(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}),
    messages(USER, {"role": "assistant", "tool_calls": [CALL]}),
    messages({"role": "tool", "content": "42", "tool_call_id": "c1"}),
    messages({"role": "tool", "content": [{"type": "text", "text": "42"}], "tool_call_id": "c1"}),
    ours(tags={}, dryrun=False, variant_name="sim", include_raw_usage=True),
    ours(tags=None, cache_options=None, dryrun=None, episode_id=None, deny_unknown_fields=None),
    ours(cache_options={"enabled": "off", "max_age_s": 5}),
    ours(cache_options={"max_age_s": None}),
    ours(cache_options={}),
    *(ours(cache_options={"enabled": m}) for m in ("on", "read_only", "write_only")),
    ours(resumable=False),
    ours(something_new=1),
    ours(tags={"a" * 256: "b" * 256}),
    ours(tags={f"t{n}": "" for n in range(32)}),
    ours(include_raw_response=True),
    body(**{"ollm::deny_unknown_fields": True, "logprobs": True, "user": "u", "stop": ["x"]}),
    b' \n{"model":"m","messages":[{"role":"user","content":"\xc3\xa9\\u0000"}]}\n',
    nested(MAX_DEPTH),
]


@pytest.mark.parametrize("good", GOOD, ids=range(len(GOOD)))
def test_a_good_body_passes_whole(good):
    request = chat.parse(good)
    assert request.fields == json.loads(good)


# body, status, code, param
NOT_NUMBERS: tuple[Any, ...] = ("0.5", True, [], {}, 10**400)
NOT_CAPS: tuple[Any, ...] = (-1, 2**31, 1.0, "5", False, [])
NOT_TIERS: tuple[Any, ...] = ("batch", "AUTO", "", 5, ["auto"])
NOT_TRUTHS: tuple[Any, ...] = ("true", 1, 0, [])

BAD: list[tuple[bytes, int, str, str | None]] = [
    # not JSON
    (b"", 400, "invalid_value", None),
    (b"{", 400, "invalid_value", None),
    (b"nonsense", 400, "invalid_value", None),
    (b'{"model":"m"} x', 400, "invalid_value", None),
    (b'{"model":"\xff"}', 400, "invalid_value", None),
    (b'{"model":"\\ud800"}', 400, "invalid_value", None),
    (b"\xef\xbb\xbf{}", 400, "invalid_value", None),
    (b'{"temperature":NaN}', 400, "invalid_value", None),
    (b'{"temperature":-Infinity}', 400, "invalid_value", None),
    (b'{"temperature":1e400}', 400, "invalid_value", None),
    (b'{"temperature":%b}' % (b"9" * 5000), 400, "invalid_value", None),
    (b"[" * 200_000, 400, "invalid_value", None),
    (b'{"a":' * 200_000, 400, "invalid_value", None),
    (nested(MAX_DEPTH + 1), 400, "invalid_value", None),
    (nested(900), 400, "invalid_value", None),
    (b'{"a":[' + b"[]," * 2_000_001 + b"0]}", 400, "invalid_value", None),
    # not an object
    *((text, 400, "invalid_value", None) for text in (b"null", b"[]", b'"x"', b"5", b"true")),
    # model
    (body(model=...), 400, "missing_required_parameter", "model"),
    (body(model=None), 400, "missing_required_parameter", "model"),
    (body(model=5), 400, "invalid_value", "model"),
    (body(model=""), 400, "invalid_value", "model"),
    (body(model="  "), 400, "invalid_value", "model"),
    # messages
    (body(messages=...), 400, "missing_required_parameter", "messages"),
    (body(messages=None), 400, "missing_required_parameter", "messages"),
    (body(messages="hi"), 400, "invalid_value", "messages"),
    (body(messages={}), 400, "invalid_value", "messages"),
    (body(messages=[]), 400, "invalid_value", "messages"),
    (messages("hi"), 400, "invalid_value", "messages.0"),
    (messages(USER, None), 400, "invalid_value", "messages.1"),
    (messages({"content": "x"}), 400, "missing_required_parameter", "messages.0.role"),
    (messages({"role": "wizard", "content": "x"}), 400, "invalid_value", "messages.0.role"),
    (messages({"role": "function", "content": "x"}), 400, "invalid_value", "messages.0.role"),
    (messages({"role": "User", "content": "x"}), 400, "invalid_value", "messages.0.role"),
    (messages({"role": ["user"], "content": "x"}), 400, "invalid_value", "messages.0.role"),
    (messages(USER, {"role": 1}), 400, "invalid_value", "messages.1.role"),
    (messages({"role": "user", "content": 5}), 400, "invalid_value", "messages.0.content"),
    (messages({"role": "user", "content": {}}), 400, "invalid_value", "messages.0.content"),
    (messages({"role": "user", "content": True}), 400, "invalid_value", "messages.0.content"),
    (messages({"role": "user", "content": ["x"]}), 400, "invalid_value", "messages.0.content.0"),
    (
        messages({"role": "user", "content": [{"text": "x"}]}),
        400, "missing_required_parameter", "messages.0.content.0.type",
    ),
    (
        messages({"role": "user", "content": [{"type": 5}]}),
        400, "invalid_value", "messages.0.content.0.type",
    ),
    (
        messages({"role": "user", "content": [{"type": "text"}]}),
        400, "missing_required_parameter", "messages.0.content.0.text",
    ),
    (
        messages({"role": "user", "content": [{"type": "text", "text": 5}]}),
        400, "invalid_value", "messages.0.content.0.text",
    ),
    (
        messages({"role": "user", "content": [IMAGE, {"type": "image_url"}]}),
        400, "missing_required_parameter", "messages.0.content.1.image_url",
    ),
    (
        messages({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}),
        400, "invalid_value", "messages.0.content.0.image_url",
    ),
    (
        messages({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}),
        400, "missing_required_parameter", "messages.0.content.0.image_url.url",
    ),
    (
        messages({"role": "user", "content": [{"type": "text", "ollm::arguments": []}]}),
        400, "invalid_value", "messages.0.content.0.ollm::arguments",
    ),
    (
        messages({"role": "user", "content": [{"type": "text", "ollm::arguments": None, "text": "x"}]}),
        400, "invalid_value", "messages.0.content.0.ollm::arguments",
    ),
    (
        messages({"role": "user", "content": [{**IMAGE, "ollm::arguments": {}}]}),
        400, "invalid_value", "messages.0.content.0.ollm::arguments",
    ),
    (
        messages({**USER, "ollm::arguments": {}}),
        400, "invalid_value", "messages.0.ollm::arguments",
    ),
    (messages({**USER, "name": 5}), 400, "invalid_value", "messages.0.name"),
    (messages({**USER, "tool_call_id": 5}), 400, "invalid_value", "messages.0.tool_call_id"),
    (messages({**USER, "tool_calls": {}}), 400, "invalid_value", "messages.0.tool_calls"),
    (messages({**USER, "tool_calls": ["x"]}), 400, "invalid_value", "messages.0.tool_calls.0"),
    # numbers
    *(
        (body(**{name: wrong}), 400, "invalid_value", name)
        for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")
        for wrong in NOT_NUMBERS
    ),
    *(
        (body(**{name: wrong}), 400, "invalid_value", name)
        for name in ("max_tokens", "max_completion_tokens")
        for wrong in NOT_CAPS
    ),
    *(
        (body(seed=wrong), 400, "invalid_value", "seed")
        for wrong in (2**31, -(2**31) - 1, 2**64, 0.5, "1", True)
    ),
    *((body(n=wrong), 400, "invalid_value", "n") for wrong in (1.0, "1", True, 2**31)),
    *((body(n=wrong), 400, "unsupported_value", "n") for wrong in (0, 2, -1)),
    # strings, truths, choices
    (body(stop="x"), 400, "invalid_value", "stop"),
    (body(stop={"a": 1}), 400, "invalid_value", "stop"),
    (body(stop=["a", 5]), 400, "invalid_value", "stop.1"),
    (body(reasoning_effort=5), 400, "invalid_value", "reasoning_effort"),
    (body(verbosity=[]), 400, "invalid_value", "verbosity"),
    (body(user=5), 400, "invalid_value", "user"),
    *(
        (body(service_tier=wrong), 400, "invalid_value", "service_tier")
        for wrong in NOT_TIERS
    ),
    *((body(stream=wrong), 400, "invalid_value", "stream") for wrong in NOT_TRUTHS),
    (body(stream_options=[]), 400, "invalid_value", "stream_options"),
    (body(stream_options=True), 400, "invalid_value", "stream_options"),
    (
        body(stream=True, stream_options={"include_usage": "yes"}),
        400, "invalid_value", "stream_options.include_usage",
    ),
    # tools
    (body(tools={}), 400, "invalid_value", "tools"),
    (body(tools=["x"]), 400, "invalid_value", "tools.0"),
    (body(tools=[TOOL, {}]), 400, "missing_required_parameter", "tools.1.type"),
    (body(tools=[{"type": 5}]), 400, "invalid_value", "tools.0.type"),
    (
        body(tools=[{"type": "function"}]),
        400, "missing_required_parameter", "tools.0.function",
    ),
    (
        body(tools=[{"type": "function", "function": {}}]),
        400, "missing_required_parameter", "tools.0.function.name",
    ),
    (
        body(tools=[{"type": "function", "function": {"name": ""}}]),
        400, "invalid_value", "tools.0.function.name",
    ),
    (
        body(tools=[{"type": "function", "function": {"name": "f", "parameters": "x"}}]),
        400, "invalid_value", "tools.0.function.parameters",
    ),
    (body(tool_choice=5), 400, "invalid_value", "tool_choice"),
    (body(tool_choice={}), 400, "missing_required_parameter", "tool_choice.type"),
    (body(parallel_tool_calls="no"), 400, "invalid_value", "parallel_tool_calls"),
    # response_format
    (body(response_format="json"), 400, "invalid_value", "response_format"),
    (body(response_format={}), 400, "invalid_value", "response_format.type"),
    (body(response_format={"type": "xml"}), 400, "invalid_value", "response_format.type"),
    (
        body(response_format={"type": "json_schema"}),
        400, "missing_required_parameter", "response_format.json_schema",
    ),
    (
        body(response_format={"type": "json_schema", "json_schema": []}),
        400, "invalid_value", "response_format.json_schema",
    ),
    # ours
    (ours(tags="x"), 400, "invalid_value", "ollm::tags"),
    (ours(tags=""), 400, "invalid_value", "ollm::tags"),
    (ours(tags=0), 400, "invalid_value", "ollm::tags"),
    (ours(tags={"a": 1}), 400, "invalid_value", "ollm::tags.a"),
    (ours(tags={"a": None}), 400, "invalid_value", "ollm::tags.a"),
    (ours(tags={"a": {"b": "c"}}), 400, "invalid_value", "ollm::tags.a"),
    (ours(tags={"": "x"}), 400, "invalid_value", "ollm::tags."),
    (ours(tags=["novalue"]), 400, "invalid_value", "ollm::tags.0"),
    (ours(tags=["a=b", 5]), 400, "invalid_value", "ollm::tags.1"),
    (ours(tags=["=b"]), 400, "invalid_value", "ollm::tags.0"),
    (ours(tags={f"t{n}": "x" for n in range(33)}), 400, "invalid_value", "ollm::tags"),
    (ours(tags={"a": "b" * 257}), 400, "invalid_value", "ollm::tags.a"),
    (ours(tags={"a": "é" * 129}), 400, "invalid_value", "ollm::tags.a"),
    (ours(tags={"a" * 257: "b"}), 400, "invalid_value", "ollm::tags." + "a" * 32 + "…"),
    *(
        (ours(episode_id=wrong), 400, "invalid_value", "ollm::episode_id")
        for wrong in ("", "x", UUID7[:-1], UUID7 + "0", "{" + UUID7 + "}", 5, UUID7[:8] + UUID7[9:])
    ),
    (ours(variant_name=5), 400, "invalid_value", "ollm::variant_name"),
    (ours(deny_unknown_fields="yes"), 400, "invalid_value", "ollm::deny_unknown_fields"),
    (ours(include_raw_usage=1), 400, "invalid_value", "ollm::include_raw_usage"),
    (ours(include_raw_response="x"), 400, "invalid_value", "ollm::include_raw_response"),
    (
        body(**{"ollm::include_raw_usage": True, "stream": True}),
        400, "invalid_value", "ollm::include_raw_usage",
    ),
    (ours(dryrun="yes"), 400, "invalid_value", "ollm::dryrun"),
    (ours(resumable=True), 400, "unsupported_value", "ollm::resumable"),
    (ours(cache_options="on"), 400, "invalid_value", "ollm::cache_options"),
    (
        ours(cache_options={"enabled": "maybe"}),
        400, "invalid_value", "ollm::cache_options.enabled",
    ),
    (ours(cache_options={"enabled": True}), 400, "invalid_value", "ollm::cache_options.enabled"),
    (ours(cache_options={"enabled": None}), 400, "invalid_value", "ollm::cache_options.enabled"),
    (
        ours(cache_options={"enabled": "off", "max_age_s": -1}),
        400, "invalid_value", "ollm::cache_options.max_age_s",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "status", "code", "param"), BAD, ids=[f"{n}-{row[3]}" for n, row in enumerate(BAD)]
)
def test_a_bad_body_is_refused_with_its_path(bad, status, code, param):
    with pytest.raises(GatewayError) as caught:
        chat.parse(bad)
    error = caught.value.body()
    assert (error.status, error.code, error.param) == (status, code, param)
    if status == 400:
        detail = json.loads(msgspec.json.encode(error.document()))["detail"]
        assert [set(item) for item in detail] == [{"loc", "msg", "type"}]
        assert detail[0]["loc"][0] == "body"


def test_detail_names_the_place_by_steps():
    with pytest.raises(InvalidRequest) as caught:
        chat.parse(messages(USER, {"role": "user", "content": [{"type": "text"}]}))
    assert caught.value.faults[0].loc == ("body", "messages", 1, "content", 0, "text")
    assert caught.value.faults[0].type == "missing"


def test_no_error_repeats_what_was_said():
    secret = "the prompt of somebody"
    for wrong in (
        messages({"role": secret, "content": "x"}),
        messages({"role": "user", "content": {"text": secret}}),
        body(service_tier=secret),
        body(temperature=secret),
        b'{"model":"m","messages":[{"role":"user","content":"%b"}' % secret.encode(),
    ):
        with pytest.raises(InvalidRequest) as caught:
            chat.parse(wrong)
        assert secret not in json.dumps(json.loads(msgspec.json.encode(caught.value.body())))


def test_unknown_fields_are_denied_by_their_sorted_names():
    with pytest.raises(InvalidRequest) as caught:
        chat.parse(body(**{"ollm::deny_unknown_fields": True, "zeta": 1, "ollm::x": 1, "Alpha": 2}))
    assert caught.value.code == "unknown_parameter"
    assert caught.value.message == "Unknown fields: Alpha, ollm::x, zeta"
    assert len(caught.value.faults) == 3


def test_a_flood_of_unknown_fields_does_not_come_back_whole():
    flood = {f"field {n:06d} " + "x" * 1000: n for n in range(5000)}
    with pytest.raises(InvalidRequest) as caught:
        chat.parse(body(**{"ollm::deny_unknown_fields": True}, **flood))
    assert len(caught.value.message) < 20_000


def test_a_bare_stop_is_taken_and_wrapped_only_where_the_operator_allows_it():
    request = chat.parse(body(stop="END"), accept_stop_string=True)
    assert chat.to_upstream(request.fields, "m")["stop"] == ["END"]
    with pytest.raises(InvalidRequest):
        chat.parse(body(stop=5), accept_stop_string=True)


def test_what_the_gateway_needs_is_read():
    request = chat.parse(
        body(
            **{
                "stream": True,
                "stream_options": {"include_usage": True},
                "service_tier": "flex",
                "user": "u1",
                "max_tokens": 100,
                "max_completion_tokens": 50,
                "ollm::episode_id": UUID7.upper(),
                "ollm::tags": ["a=b=c", "d="],
                "ollm::variant_name": "sim",
                "ollm::include_raw_usage": True,
                "ollm::include_raw_response": True,
            }
        )
    )
    assert request.model == "sim_echo"
    assert request.stream
    assert request.include_usage
    assert request.service_tier == "flex"
    assert request.user == "u1"
    assert request.max_output == 50
    assert request.episode_id == UUID7.replace("-", "")
    assert request.tags == {"a": "b=c", "d": ""}
    assert request.variant_name == "sim"
    assert request.include_raw_usage
    assert request.include_raw_response


def test_a_bare_body_asks_for_nothing_special():
    request = chat.parse(body())
    assert not request.stream
    assert not request.include_usage
    assert request.max_output is None
    assert request.episode_id is None
    assert request.tags == {}


def test_an_episode_may_be_any_uuid_with_or_without_dashes():
    four = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
    for given in (four, four.replace("-", "")):
        assert chat.parse(ours(episode_id=given)).episode_id == four.replace("-", "")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"source": "playground", "a": "b"}, {"application": "playground", "a": "b"}),
        (["source=playground"], {"application": "playground"}),
        ({"source": "other"}, {"source": "other"}),
        ({"Source": "playground"}, {"Source": "playground"}),
    ],
)
def test_the_playground_is_an_application(given, kept):
    assert chat.parse(ours(tags=given)).tags == kept


@pytest.mark.parametrize(
    ("tags", "agent", "kept"),
    [
        ({}, "OpenAI/Python 2.1.0", {"application": "OpenAI/Python 2.1.0"}),
        ({"a": "b"}, "curl/8", {"a": "b"}),
        ({}, None, {}),
        ({}, "", {}),
        ({}, "a\x00\nb", {"application": "a  b"}),
        ({}, "é" * 200, {"application": "é" * 128}),
    ],
)
def test_without_tags_the_user_agent_names_the_application(tags, agent, kept):
    assert tags_or_user_agent(chat.parse(ours(tags=tags)), agent) == kept


def test_the_upstream_gets_the_document_without_our_fields_under_its_own_name():
    request = chat.parse(
        body(
            **{
                "temperature": 0.5,
                "vendor_thing": {"x": [1, None]},
                "user": "u",
                "ollm::tags": {"a": "b"},
                "ollm::episode_id": UUID7,
                "ollm::unknown": 1,
            }
        )
    )
    assert chat.to_upstream(request.fields, "openai/gpt-oss-120b") == {
        "model": "openai/gpt-oss-120b",
        "messages": [USER],
        "temperature": 0.5,
        "vendor_thing": {"x": [1, None]},
        "user": "u",
    }
    assert request.fields["model"] == "sim_echo"


def test_a_stream_always_asks_the_upstream_for_usage():
    for options in (..., None, {}, {"include_usage": False, "other": 1}):
        request = chat.parse(body(stream=True, stream_options=options))
        sent = chat.to_upstream(request.fields, "m")["stream_options"]
        assert sent["include_usage"] is True
        assert sent.get("other") == (1 if options and options is not ... else None)
    assert "stream_options" not in chat.to_upstream(chat.parse(body(stream=False)).fields, "m")


@pytest.mark.parametrize(
    ("caps", "sent"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 9}, {"max_tokens": 5}),
        ({"max_tokens": 9, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": None, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": 0, "max_completion_tokens": 5}, {"max_tokens": 0}),
    ],
)
def test_of_two_token_caps_the_smaller_one_is_sent(caps, sent):
    document = chat.to_upstream(chat.parse(body(**caps)).fields, "m")
    found = {name: document[name] for name in chat.TOKEN_CAPS if document.get(name) is not None}
    assert found == sent


@pytest.mark.parametrize("name", ["model", "messages", "temperature", "ollm::dryrun", "unheard_of"])
def test_a_field_that_stands_twice_is_refused(name: str) -> None:
    good = json.loads(body(temperature=1, unheard_of=2, **{"ollm::dryrun": True}))
    again = json.dumps({name: good[name]}).encode()[1:]
    with pytest.raises(InvalidRequest) as refused:
        chat.parse(json.dumps(good).encode()[:-1] + b"," + again)
    assert refused.value.param == name


def test_a_name_that_stands_elsewhere_too_is_no_duplicate() -> None:
    said = 'my "model" and "user": twice'
    request = chat.parse(
        body(user="user", messages=[{"role": "user", "content": said}], x={"model": 1})
    )
    assert request.user == "user"


def test_a_dry_run_is_read():
    assert chat.parse(ours(dryrun=True)).dryrun
    assert not chat.parse(ours(dryrun=None)).dryrun


def test_arguments_in_any_message_are_noticed() -> None:
    part = {"type": "text", "ollm::arguments": {"city": "Oslo"}}
    assert chat.parse(messages({"role": "system", "content": [part]}, USER)).has_arguments
    assert not chat.parse(messages(USER)).has_arguments


def test_raw_usage_needs_no_word_where_streams_always_have_usage() -> None:
    asked = body(stream=True, **{"ollm::include_raw_usage": True})
    with pytest.raises(InvalidRequest):
        chat.parse(asked)
    assert chat.parse(asked, always_usage=True).include_raw_usage
