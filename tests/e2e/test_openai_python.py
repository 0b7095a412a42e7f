"""The official `openai` Python client, unmodified, against the real processes."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import clickhouse_connect
import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.e2e.ledger import Books
from tests.e2e.started import StartedGateway, until

TEXT = 'Grüße, 世界 🌍: tell me "choices": of a\nnew line'
MESSAGES: Any = [{"role": "user", "content": TEXT}]
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
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[OpenAI]:
    ready = gateway.ready
    with OpenAI(
        base_url=f"{ready.base_url}/v1", api_key=ready.api_key, max_retries=0, timeout=30
    ) as opened:
        yield opened


@pytest.fixture
async def async_client(gateway: StartedGateway) -> AsyncIterator[AsyncOpenAI]:
    ready = gateway.ready
    async with AsyncOpenAI(
        base_url=f"{ready.base_url}/v1", api_key=ready.api_key, max_retries=0, timeout=30
    ) as opened:
        yield opened


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


# ---- whole answers


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


# ---- streams


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


@pytest.mark.parametrize("model", ["near_sim_chat", "phala_sim_chat", "vercel_sim_chat"])
def test_confidential_providers_answer_whole(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert (answer.model, answer.choices[0].message.content) == (model, TEXT)


# ---- tools and schemas


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


# ---- errors


def failure(client: OpenAI, model: str, **members: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model, messages=MESSAGES, **members)
    return caught.value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("model", "kind", "status", "code"),
    [
        ("no_such_model", openai.NotFoundError, 404, "model_not_found"),
        ("sim_fault_400", openai.BadRequestError, 400, "invalid_value"),
        ("sim_fault_422", openai.BadRequestError, 400, "invalid_value"),
        ("sim_fault_404", openai.NotFoundError, 404, "model_not_found"),
        ("sim_fault_401", openai.InternalServerError, 502, "upstream_rejected_credentials"),
        ("sim_fault_429", openai.RateLimitError, 429, "upstream_rate_limited"),
        ("sim_fault_500", openai.InternalServerError, 502, "upstream_error"),
        ("sim_fault_503", openai.InternalServerError, 502, "upstream_error"),
        ("sim_fault_error_200", openai.InternalServerError, 502, "upstream_protocol_error"),
        ("sim_fault_no_choices", openai.InternalServerError, 502, "upstream_protocol_error"),
        ("sim_fault_bad_content_type", openai.InternalServerError, 502, "upstream_protocol_error"),
        ("sim_fault_redirect", openai.InternalServerError, 502, "upstream_error"),
    ],
)
def test_failures_become_the_clients_own_errors(
    client: OpenAI, model: str, kind: type[openai.APIStatusError], status: int, code: str,
    stream: bool,
) -> None:  # fmt: skip
    error = failure(client, model, stream=stream)
    assert type(error) is kind
    assert (error.status_code, error.code) == (status, code)
    assert isinstance(error.body, dict)
    assert error.body.keys() == {"message", "type", "code", "param"}
    assert UUID(error.response.headers["x-request-id"]).version == 7
    assert error.request_id == error.response.headers["x-request-id"]
    assert ("retry-after" in error.response.headers) == (status == 429)


def test_a_wrong_key_is_an_authentication_error(client: OpenAI) -> None:
    for key in ("sk-ollm-aaaaaaaaaaaa-" + "b" * 48, "not even a key"):
        error = failure(client.with_options(api_key=key), "sim_echo")
        assert type(error) is openai.AuthenticationError
        assert (error.type, error.code) == ("authentication_error", "invalid_api_key")


def test_bad_parameters_are_named(client: OpenAI) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("n", {"n": 2}),
        ("stop", {"stop": "a bare string"}),
        ("ollm::tags.a", {"extra_body": {"ollm::tags": {"a": 1}}}),
        ("ollm::episode_id", {"extra_body": {"ollm::episode_id": "no uuid"}}),
    ]
    for param, members in bodies:
        error = failure(client, "sim_echo", **members)
        assert type(error) is openai.BadRequestError
        assert error.type == "invalid_request_error"
        assert error.param == param


@pytest.mark.parametrize(
    "model",
    [
        "sim_fault_cut_after_20",
        "sim_fault_malformed",
        "sim_fault_error_in_stream",
        "sim_fault_no_done",
    ],
)
def test_a_cut_stream_raises_and_never_ends_as_if_complete(client: OpenAI, model: str) -> None:
    heard: list[ChatCompletionChunk] = []
    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    with stream, pytest.raises(openai.APIError) as caught:
        heard.extend(stream)
    assert text_of(heard), "the beginning was relayed"
    assert caught.value.code in {"upstream_protocol_error", "upstream_error"}


def test_a_provider_that_fails_once_or_has_a_stand_in_is_not_noticed(client: OpenAI) -> None:
    for model in ("sim_fault_flaky", "sim_fallback"):
        messages: Any = [{"role": "user", "content": f"{model} {uuid4()}"}]
        answer = client.chat.completions.create(model=model, messages=messages)
        assert answer.choices[0].message.content == messages[0]["content"]


def test_a_slow_provider_is_a_504(client: OpenAI) -> None:
    error = failure(client, "sim_fault_slow_first_byte")
    assert type(error) is openai.InternalServerError
    assert (error.status_code, error.type) == (504, "timeout_error")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_gives_up_ends_the_providers_call(
    gateway: StartedGateway, client: OpenAI, stream: bool
) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(
            model="sim_fault_slow_first_byte", messages=MESSAGES, stream=stream
        )
    until(lambda: [call.status for call in books.calls(since)] == ["aborted"], 2)


def test_a_client_that_leaves_a_stream_ends_the_providers_call(
    gateway: StartedGateway, client: OpenAI
) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    with client.chat.completions.create(
        model="sim_fault_endless", messages=MESSAGES, stream=True
    ) as stream:
        for count, _ in enumerate(stream):
            if count == 10:
                break
    until(lambda: [call.status for call in books.calls(since)] == ["aborted"], 2)


# ---- models, headers, our own fields


def test_models_are_listed_and_found_by_name(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"sim_echo", "near_sim_chat", "phala_sim_chat", "vercel_sim_chat"} <= listed.keys()
    found = client.models.retrieve("near_sim_chat")
    assert found == listed["near_sim_chat"]
    assert (found.model_extra or {})["model_info"]["tier"] == "TEE"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no_such_model")
    hidden = {model.id for model in client.models.list(extra_query={"allow_tee": "false"})}
    assert "sim_echo" in hidden
    assert "near_sim_chat" not in hidden


def test_headers_tell_the_request_its_cost_and_its_times(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sim_echo", messages=MESSAGES, extra_headers={"x-request-id": "mine"}
    )
    answer, headers = raw.parse(), raw.headers
    request_id = UUID(headers["x-request-id"])
    assert request_id.version == 7
    assert answer.id == f"chatcmpl-{request_id.hex}"
    assert headers["otari-request-id"] == headers["x-request-id"]
    assert answer.usage is not None
    price_in, price_out = Decimal("0.5"), Decimal("1.5")
    cost = price_in * answer.usage.prompt_tokens + price_out * answer.usage.completion_tokens
    assert Decimal(headers["x-ollm-cost-usd"]) == cost / 1_000_000
    assert 0 < float(headers["x-ollm-overhead-ms"]) < 5000
    timings = {part.split(";")[0].strip() for part in headers["server-timing"].split(",")}
    assert timings == {"auth", "queue", "upstream", "relay"}


@pytest.mark.parametrize("tier", ["auto", "default", "flex", "priority"])
def test_every_service_tier_is_served(client: OpenAI, tier: Any) -> None:
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES, service_tier=tier)
    assert answer.choices[0].message.content == TEXT
    assert answer.service_tier


def test_tags_and_episode_come_back_in_the_answer_and_the_spend_row(
    gateway: StartedGateway, client: OpenAI
) -> None:
    episode = str(uuid4())
    ours = {"ollm::tags": {"team": "blau"}, "ollm::episode_id": episode}
    raw = client.chat.completions.with_raw_response.create(
        model="near_sim_chat",
        messages=MESSAGES,
        service_tier="flex",
        extra_body=ours,
        extra_headers={"x-request-id": "mine-7"},
    )
    assert (raw.parse().model_extra or {})["episode_id"] == episode
    until(lambda: bool(spend(gateway, raw.headers["x-request-id"])), 20)
    told = ("completed", "flex", "TEE", {"team": "blau"}, "mine-7")
    assert spend(gateway, raw.headers["x-request-id"]) == [(*told, UUID(episode).hex)]


def spend(gateway: StartedGateway, request_id: str) -> Any:
    client = clickhouse_connect.get_client(dsn=gateway.ready.clickhouse_url)
    try:
        return client.query(
            "SELECT status, lane, tier, tags, client_request_id, episode_id FROM spend"
            " WHERE request_id = %(id)s",
            {"id": request_id},
        ).result_rows
    finally:
        client.close()


def test_raw_usage_and_raw_response_are_added_when_asked_for(client: OpenAI) -> None:
    ours = {"ollm::include_raw_usage": True, "ollm::include_raw_response": True}
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES, extra_body=ours)
    extra = answer.model_extra or {}
    (usage,), (response,) = extra["ollm_raw_usage"], extra["ollm_raw_response"]
    assert UUID(usage["model_inference_id"]).version == 7
    assert usage["provider_type"] == "openai"
    assert answer.usage is not None
    assert usage["data"]["total_tokens"] == answer.usage.total_tokens
    assert json.loads(response["data"])["choices"][0]["message"]["content"] == TEXT


def test_a_stream_carries_raw_chunks_and_raw_usage_when_asked_for(client: OpenAI) -> None:
    ours = {"ollm::include_raw_usage": True, "ollm::include_raw_response": True}
    with client.chat.completions.create(
        model="sim_echo",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=ours,
    ) as stream:
        chunks = list(stream)
    raw = [json.loads((chunk.model_extra or {})["ollm_raw_chunk"]) for chunk in chunks]
    spoken = [c["choices"][0]["delta"].get("content") or "" for c in raw if c["choices"]]
    assert "".join(spoken) == TEXT == text_of(chunks)
    (usage,) = (chunks[-1].model_extra or {})["ollm_raw_usage"]
    assert usage["data"] == raw[-1]["usage"]
    error = failure(client, "sim_echo", stream=True, extra_body={"ollm::include_raw_usage": True})
    assert error.status_code == 400


def test_unknown_fields_pass_unless_they_are_denied(client: OpenAI) -> None:
    stray = {"zebra": 1, "apple": {"b": 2}}
    answer = client.chat.completions.create(model="sim_echo", messages=MESSAGES, extra_body=stray)
    assert answer.choices[0].message.content == TEXT
    denied = {**stray, "ollm::deny_unknown_fields": True}
    error = failure(client, "sim_echo", extra_body=denied)
    assert (error.status_code, error.code) == (400, "unknown_parameter")
    assert "apple, zebra" in error.message


# ---- embeddings and rerank


def test_embeddings_come_back_as_numbers_and_as_base64(client: OpenAI) -> None:
    """The client asks for base64 by itself and decodes it; floats only when told."""
    model = "ollm::embedding_model_name::sim_embed"
    packed = client.embeddings.create(model=model, input=["one two", "three"])
    plain = client.embeddings.create(
        model=model, input=["one two", "three"], encoding_format="float"
    )
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.model == model
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (3, 3)


def test_tokens_and_dimensions_reach_the_embedding_model(client: OpenAI) -> None:
    answer = client.embeddings.create(
        model="ollm::embedding_model_name::sim_embed", input=[[1, 2], [3]], dimensions=4
    )
    assert [len(item.embedding) for item in answer.data] == [4, 4]
    assert answer.usage.prompt_tokens == 3


def test_an_embedding_model_without_its_prefix_is_served_with_a_warning(client: OpenAI) -> None:
    bare = client.embeddings.with_raw_response.create(model="sim_embed", input="a")
    named = client.embeddings.with_raw_response.create(
        model="ollm::embedding_model_name::sim_embed", input="a"
    )
    assert bare.headers["warning"].startswith("299 ")
    assert "warning" not in named.headers
    assert bare.parse().data[0].embedding == named.parse().data[0].embedding


def test_an_empty_input_is_refused_with_its_place(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="sim_embed", input=[])
    assert refused.value.param == "input"


def test_documents_are_ranked(client: OpenAI) -> None:
    """OpenAI has no such endpoint: the client's own way to call another one."""
    body = {"model": "sim_rerank", "query": "red fish", "documents": ["blue", {"text": "red fish"}]}
    answer: Any = client.post("/rerank", body={**body, "return_documents": True}, cast_to=object)
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][0]["document"] == {"text": "red fish"}


def test_a_model_of_a_provider_without_the_endpoint_cannot_rank(client: OpenAI) -> None:
    body = {"model": "near_sim_chat", "query": "a", "documents": ["b"]}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/rerank", body=body, cast_to=object)
    assert (refused.value.code, refused.value.param) == ("unsupported_value", "model")


# ---- dry runs


def test_a_dry_run_is_answered_and_is_found_in_no_ledger_of_ours(
    client: OpenAI, gateway: StartedGateway
) -> None:
    books = Books(gateway.ready)
    since = books.mark()
    dry = set()
    for stream in (False, True):
        answer: Any = client.chat.completions.create(
            model="sim_echo", messages=MESSAGES, stream=stream, extra_body={"ollm::dryrun": True}
        )
        chunks = list(answer) if stream else []
        assert (text_of(chunks) if stream else answer.choices[0].message.content) == TEXT
        dry.add((chunks[0] if stream else answer).id.removeprefix("chatcmpl-"))
    paid = client.chat.completions.create(model="sim_echo", messages=MESSAGES)
    stored = paid.id.removeprefix("chatcmpl-")
    until(lambda: stored in {row.request_id for row in books.rows(since)}, 30)
    assert len(books.calls(since)) == 3
    assert not dry & {row.request_id for row in books.rows(since)}


# ---- functions


def test_a_function_answers_by_one_of_its_variants(client: OpenAI) -> None:
    ask = client.chat.completions.create
    name = "ollm::function_name::sim_assistant"
    answers = [ask(model=name, messages=MESSAGES) for _ in range(40)]
    reasons = [answer.choices[0].finish_reason for answer in answers]
    assert set(reasons) == {"length", "stop"}, "both variants, the brief one by its cap"
    assert {answer.model for answer in answers} == {name}
    full = ask(model=name, messages=MESSAGES, extra_body={"ollm::variant_name": "full"})
    assert full.choices[0].message.content == TEXT
    with pytest.raises(openai.NotFoundError) as refused:
        ask(model=name, messages=MESSAGES, extra_body={"ollm::variant_name": "nobody"})
    assert refused.value.param == "ollm::variant_name"


@pytest.mark.parametrize("function", ["sim_best", "sim_mixture"])
def test_a_panel_answers_whole_and_streamed(client: OpenAI, function: str) -> None:
    ask = client.chat.completions.create
    name = f"ollm::function_name::{function}"
    whole = ask(model=name, messages=MESSAGES)
    single = ask(model="sim_echo", messages=MESSAGES)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert single.usage is not None
    assert whole.usage.prompt_tokens > 3 * single.usage.prompt_tokens, "the sum of three calls"
    chunks = list(
        ask(model=name, messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_the_variant_of_an_episode_is_in_its_spend_rows(
    client: OpenAI, gateway: StartedGateway
) -> None:
    episode = str(uuid4())
    asked = [
        client.chat.completions.with_raw_response.create(
            model="ollm::function_name::sim_assistant",
            messages=MESSAGES,
            extra_body={"ollm::episode_id": episode},
        ).headers["x-request-id"]
        for _ in range(6)
    ]
    with clickhouse_connect.get_client(dsn=gateway.ready.clickhouse_url) as store:

        def variants() -> list[str]:
            found = store.query(
                "SELECT variant FROM spend WHERE request_id IN %(ids)s", {"ids": asked}
            )
            return [variant for (variant,) in found.result_rows]

        until(lambda: len(variants()) == len(asked), 20)
        assert len(set(variants())) == 1
        assert set(variants()) <= {"brief", "full"}


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


def test_a_lane_that_a_key_may_not_have_is_not_bought_at_the_provider(
    gateway: StartedGateway,
) -> None:
    made = gateway.run("keys", "create", "--name=flex", "--best-lane=flex")
    ready = gateway.ready
    with OpenAI(base_url=f"{ready.base_url}/v1", api_key=made.stdout.strip()) as limited:
        answer = limited.chat.completions.create(
            model="sim_echo", messages=MESSAGES, service_tier="priority"
        )
    assert answer.service_tier == "flex"


def test_a_compressed_body_and_a_missing_key_are_told_as_such(gateway: StartedGateway) -> None:
    ready = gateway.ready
    with httpx.Client(base_url=ready.base_url) as http:
        key = {"authorization": f"Bearer {ready.api_key}", "content-type": "application/json"}
        body = b'{"model":"sim_echo","messages":[{"role":"user","content":"x"}]}'
        zipped = http.post(
            "/v1/chat/completions",
            content=gzip.compress(body),
            headers={**key, "content-encoding": "gzip"},
        )
        stranger = http.post("/v1/chat/completions", content=body)
        probe = http.head("/health/readiness")
    assert (zipped.status_code, stranger.status_code, probe.status_code) == (415, 401, 200)
    assert stranger.headers["www-authenticate"] == "Bearer"
