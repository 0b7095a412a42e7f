"""Failures and departures of the official `openai` Python client."""

import gzip
from typing import Any
from uuid import UUID, uuid4

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.e2e.ledger import Books
from tests.e2e.openai_python.talk import MESSAGES, failure, text_of
from tests.e2e.started import StartedGateway, until


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
