"""Limits and budgets as OpenAI's own client meets them, over two API processes."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.chaos import pace
from tests.e2e.started import StartedGateway


class Tenant:
    """Makes users and keys, and asks with them."""

    def __init__(self, gateway: StartedGateway) -> None:
        self._ready = gateway.ready
        headers = {"authorization": f"Bearer {self._ready.master_key}"}
        self.manage = httpx.Client(base_url=self._ready.base_url, headers=headers, timeout=30)

    def made(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.manage.post(path, json=body)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def key(self, **options: Any) -> str:
        key: str = self.made("/v1/keys", **options)["key"]
        return key

    def client(self, key: str, **options: Any) -> openai.OpenAI:
        url = f"{self._ready.base_url}/v1"
        return openai.OpenAI(base_url=url, api_key=key, **{"max_retries": 0, **options})


@pytest.fixture
def tenant(gateway: StartedGateway) -> Iterator[Tenant]:
    opened = Tenant(gateway)
    with opened.manage:
        yield opened


def ask(client: openai.OpenAI, model: str = "sim_echo", **options: Any) -> Any:
    """The head of an answer, whose body is read."""
    messages: Any = [{"role": "user", "content": "one two three"}]
    create = client.chat.completions.with_raw_response.create
    return create(model=model, messages=messages, **options).http_response


def test_a_key_may_ask_so_often_and_is_told_what_is_left(tenant: Tenant) -> None:
    with tenant.client(tenant.key(limits={"requests_per_minute": 3})) as client:
        left = [int(ask(client).headers["x-ratelimit-remaining-requests"]) for _ in range(2)]
        streamed = ask(client, stream=True)
        assert [*left, int(streamed.headers["x-ratelimit-remaining-requests"])] == [2, 1, 0]
        assert streamed.headers["X-RateLimit-Limit"] == "3"
        assert 0 < int(streamed.headers["X-RateLimit-Reset"]) - time.time() <= 61
        streamed.read()
        with pytest.raises(openai.RateLimitError) as refused:
            ask(client)
    answer = refused.value.response
    assert refused.value.code == "rate_limit_exceeded"
    assert 50 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert answer.json()["detail"] == "Rate limit exceeded"


def test_requests_for_models_that_do_not_exist_are_counted_too(tenant: Tenant) -> None:
    with tenant.client(tenant.key(limits={"requests_per_minute": 2})) as client:
        for _ in range(2):
            with pytest.raises(openai.NotFoundError):
                ask(client, "no_such_model")
        with pytest.raises(openai.RateLimitError):
            ask(client, "no_such_model")


def test_the_clients_own_retries_wait_as_long_as_they_are_told(tenant: Tenant) -> None:
    """What was taken for the first is corrected by what it used: the second waits for the rest."""
    key = tenant.key(limits={"tokens_per_minute": 6000})
    with tenant.client(key, max_retries=2) as client:
        ask(client, max_tokens=5990)
        began = time.monotonic()
        assert int(ask(client, max_tokens=6000).headers["x-ratelimit-limit-tokens"]) == 6000
        assert time.monotonic() - began < 10


async def test_a_limit_of_requests_at_a_time_holds_over_all_processes(
    gateway: StartedGateway, tenant: Tenant
) -> None:
    key, messages = tenant.key(limits={"concurrent": 2}), [{"role": "user", "content": "hello"}]
    url, headers = f"{gateway.ready.base_url}/v1/chat/completions", {"x-api-key": key}

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:  # each on a connection of its own
            return await client.post(
                url, headers=headers, json={"model": "sim_echo", "messages": messages}
            )

    async with pace(gateway, first_token_ms=1500):
        answers = await asyncio.gather(*(asked() for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 6
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "concurrency_limit"
    assert refused.headers["retry-after"] == "1"
    assert (await asked()).status_code == 200


def test_a_changed_limit_holds_within_a_second(tenant: Tenant) -> None:
    made = tenant.made("/v1/keys", limits={"requests_per_minute": 1})
    with tenant.client(made["key"]) as client:
        ask(client)
        with pytest.raises(openai.RateLimitError):
            ask(client)
        path = f"/v1/keys/{made['id']}"
        tenant.manage.patch(path, json={"limits": {"requests_per_minute": 5}})
        time.sleep(1.1)
        assert ask(client).headers["x-ratelimit-remaining-requests"] == "3"


def test_a_spent_budget_is_403_but_for_free_models(tenant: Tenant) -> None:
    budget = tenant.made("/v1/budgets", max_budget=0)
    user = f"broke-{time.time_ns()}"
    tenant.made("/v1/users", user_id=user, budget_id=budget["budget_id"])
    for model, dollars in (("sim:costly", 1), ("sim_fault:sim/echo", 0)):
        terms = {"input_price_per_million": dollars, "output_price_per_million": dollars}
        tenant.made("/v1/pricing", model_key=model, **terms)
    time.sleep(1.1)
    with tenant.client(tenant.key(user_id=user)) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            ask(client, "sim:costly")
        assert refused.value.code == "budget_exceeded"
        assert refused.value.response.json()["detail"] == f"User '{user}' has exceeded budget limit"
        assert ask(client, "sim_fault:sim/echo").status_code == 200
