"""`ollm::cache_options`, with the official `openai` client, against the real processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import clickhouse_connect
import pytest
import redis
from openai import OpenAI

from shared.valkey.keys import ShardKeys
from tests.e2e.ledger import Books
from tests.e2e.started import StartedGateway, until

ON: Any = {"ollm::cache_options": {"enabled": "on"}}
STORED_SECONDS = 10.0


def client_of(gateway: StartedGateway, key: str) -> OpenAI:
    base_url = f"{gateway.ready.base_url}/v1"
    return OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=30)


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[OpenAI]:
    with client_of(gateway, gateway.ready.api_key) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain(gateway: StartedGateway) -> Iterator[OpenAI]:
    with with_new_key(gateway) as opened:
        yield opened


@pytest.fixture(scope="module")
def allowed(gateway: StartedGateway) -> Iterator[OpenAI]:
    """Its key has the scope."""
    with with_new_key(gateway, "--scope=cache") as opened:
        yield opened


@contextmanager
def with_new_key(gateway: StartedGateway, *options: str) -> Iterator[OpenAI]:
    made = gateway.run("keys", "create", "--name=cache", *options)
    assert made.returncode == 0, made.stderr
    with client_of(gateway, made.stdout.strip()) as opened:
        yield opened


@contextmanager
def stored(gateway: StartedGateway) -> Iterator[None]:
    """Waits until what is asked inside has been kept: that is done after the answer."""
    with redis.Redis.from_url(gateway.ready.valkey_url) as store:

        def count() -> int:
            return int(store.zcard(ShardKeys(0).cache_index))

        before = count()
        yield
        until(lambda: count() > before, STORED_SECONDS)


def something_new() -> Any:
    return [{"role": "user", "content": f"one two {uuid4().hex}"}]


def ask(client: OpenAI, messages: Any, model: str = "sim_echo", **options: Any) -> Any:
    body = {**ON, **options.pop("extra_body", {})}
    create = client.chat.completions.with_raw_response.create
    return create(model=model, messages=messages, extra_body=body, **options)


def read(answer: Any, *, stream: bool) -> tuple[str, Any, str]:
    """Its text, usage and id."""
    if not stream:
        whole = answer.parse()
        return whole.choices[0].message.content, whole.usage, whole.id
    chunks = list(answer.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return text, chunks[-1].usage, chunks[0].id


def test_the_second_answer_is_a_hit_whole_and_streamed(
    client: OpenAI, gateway: StartedGateway
) -> None:
    books, messages = Books(gateway.ready), something_new()
    since, ids = books.mark(), []
    for stream in (False, True):
        options: Any = {"stream_options": {"include_usage": True}} if stream else {}
        with stored(gateway):
            live = ask(client, messages, stream=stream, **options)
            text, paid, name = read(live, stream=stream)
        again = ask(client, messages, stream=stream, **options)
        same_text, usage, other_name = read(again, stream=stream)
        ids.append(again.headers["x-request-id"])
        assert live.headers.get("x-ollm-cache") == (None if stream else "miss")
        assert (again.headers["x-ollm-cache"], again.headers["x-ollm-cost-usd"]) == ("hit", "0")
        assert again.headers["content-type"] == live.headers["content-type"]
        for header in ("cache-control", "x-accel-buffering"):
            assert again.headers.get(header) == live.headers.get(header)
        assert text == same_text == messages[0]["content"]
        assert paid.total_tokens > 0
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (0, 0, 0)
        assert name != other_name
    assert len(books.calls(since)) == 2
    with clickhouse_connect.get_client(dsn=gateway.ready.clickhouse_url) as table:

        def rows() -> list[Any]:
            columns = "status, cached, billed, cost_usd = 0, input_tokens + output_tokens"
            query = f"SELECT {columns} FROM spend WHERE request_id IN %(ids)s"  # noqa: S608
            return list(table.query(query, {"ids": ids}).result_rows)

        until(lambda: len(rows()) == 2, 20)
        assert rows() == [("completed", True, False, True, 0)] * 2


def test_embeddings_are_given_again(client: OpenAI, gateway: StartedGateway) -> None:
    create = client.embeddings.with_raw_response.create
    wish: Any = {
        "model": "ollm::embedding_model_name::sim_embed",
        "input": uuid4().hex,
        "extra_body": ON,
    }
    with stored(gateway):
        first = create(**wish)
    second = create(**wish)
    assert (first.headers["x-ollm-cache"], second.headers["x-ollm-cache"]) == ("miss", "hit")
    assert second.parse().data == first.parse().data
    assert (second.parse().usage.total_tokens, second.headers["x-ollm-cost-usd"]) == (0, "0")


def test_another_tenant_has_a_cache_of_its_own(
    client: OpenAI, plain: OpenAI, gateway: StartedGateway
) -> None:
    messages = something_new()
    with stored(gateway):
        ask(client, messages)
    with with_new_key(gateway, "--tenant=another") as other:
        assert ask(other, messages).headers["x-ollm-cache"] == "miss"
    assert ask(plain, messages).headers["x-ollm-cache"] == "hit"


@pytest.mark.parametrize("model", ["near_sim_chat", "phala_sim_chat", "vercel_sim_chat"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_confidential_model_is_cached_for_a_key_with_the_scope_alone(
    gateway: StartedGateway, plain: OpenAI, allowed: OpenAI, model: str, stream: bool
) -> None:
    messages = something_new()

    def said(client: OpenAI) -> str:
        answer = ask(client, messages, model, stream=stream)
        if stream:
            list(answer.parse())
        return str(answer.headers.get("x-ollm-cache", "nothing"))

    assert [said(plain), said(plain)] == ["off", "off"]
    with stored(gateway):
        assert said(allowed) == ("nothing" if stream else "miss")
    assert said(allowed) == "hit"
    assert said(plain) == "off"


def test_a_dry_run_keeps_nothing_and_may_be_answered_from_what_is_kept(
    client: OpenAI, gateway: StartedGateway
) -> None:
    messages, dry = something_new(), {"ollm::dryrun": True}
    write_only = {**dry, "ollm::cache_options": {"enabled": "write_only"}}
    assert ask(client, messages, extra_body=write_only).headers["x-ollm-cache"] == "off"
    assert ask(client, messages, extra_body=dry).headers["x-ollm-cache"] == "miss"
    with stored(gateway):
        assert ask(client, messages).headers["x-ollm-cache"] == "miss"
    assert ask(client, messages, extra_body=dry).headers["x-ollm-cache"] == "hit"


def test_nobody_has_a_cache_who_does_not_ask(client: OpenAI) -> None:
    messages = something_new()
    for options in (
        {},
        {"enabled": "off"},
        {"enabled": "off", "max_age_s": 5},
        {"max_age_s": None},
    ):
        answer = ask(client, messages, extra_body={"ollm::cache_options": options})
        assert "x-ollm-cache" not in answer.headers
