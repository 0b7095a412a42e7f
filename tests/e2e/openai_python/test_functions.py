"""Functions and panels, asked by the official `openai` Python client."""

from uuid import uuid4

import clickhouse_connect
import openai
import pytest
from openai import OpenAI

from tests.e2e.openai_python.talk import MESSAGES, TEXT
from tests.e2e.started import StartedGateway, until


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
