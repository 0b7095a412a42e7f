"""What was asked for is in the ledger's answers about a second later, once for each request."""

import json
import time
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from openai import InternalServerError, OpenAI

from tests.e2e.started import StartedGateway, until

SHOWN_SECONDS = 10.0
"""About one on an idle machine; the tests share theirs."""


@pytest.fixture
def client(gateway: StartedGateway) -> OpenAI:
    ready = gateway.ready
    return OpenAI(base_url=f"{ready.base_url}/v1", api_key=ready.api_key, max_retries=0)


def ask(gateway: StartedGateway, path: str, **query: Any) -> Any:
    answer = httpx.get(
        f"{gateway.ready.base_url}{path}",
        params=query,
        headers={"authorization": f"Bearer {gateway.ready.master_key}"},
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content, parse_float=Decimal)


def test_a_request_is_in_the_usage_soon_with_the_cost_it_was_told(
    gateway: StartedGateway, client: OpenAI
) -> None:
    tag = uuid4().hex
    began = time.time()
    answer = client.chat.completions.with_raw_response.create(
        model="sim_echo",
        messages=[{"role": "user", "content": "hello"}],
        extra_body={"ollm::tags": {"test": tag}},
    )
    usage = answer.parse().usage
    assert usage is not None
    found: list[Any] = []

    def is_there() -> bool:
        found[:] = ask(gateway, "/v1/usage", tag=f"test={tag}", start_date=began - 5)
        return bool(found)

    until(is_there, SHOWN_SECONDS, gateway.logs)
    (entry,) = found
    assert entry["id"] == answer.headers["x-request-id"]
    assert (entry["status"], entry["model"]) == ("success", "sim_echo")
    assert entry["total_tokens"] == usage.total_tokens
    assert entry["cost"] > 0
    summary = ask(gateway, "/v1/usage/summary", tag=f"test={tag}", group_by="model")
    assert [(line["group"], line["cost"]) for line in summary["data"]] == [
        ("sim_echo", entry["cost"])
    ]
    of_user = ask(gateway, f"/api/v1/users/{entry['user_id']}/usage", limit=1000)
    assert entry in of_user


def test_a_request_that_was_retried_is_one_entry(gateway: StartedGateway, client: OpenAI) -> None:
    tag = uuid4().hex
    with pytest.raises(InternalServerError):
        client.chat.completions.create(
            model="sim_fault_500",
            messages=[{"role": "user", "content": "hello"}],
            extra_body={"ollm::tags": {"test": tag}},
        )
    until(lambda: bool(ask(gateway, "/v1/usage", tag=f"test={tag}")), SHOWN_SECONDS, gateway.logs)
    (entry,) = ask(gateway, "/v1/usage", tag=f"test={tag}")
    assert (entry["status"], entry["cost"]) == ("error", None)
    (line,) = ask(gateway, "/v1/usage/summary", tag=f"test={tag}")["data"]
    assert (line["requests"], line["errors"]) == (1, 1)
    assert line["attempts"] > 1


def test_the_command_prints_the_sums(gateway: StartedGateway, client: OpenAI) -> None:
    client.chat.completions.create(
        model="sim_echo", messages=[{"role": "user", "content": "hello"}]
    )
    until(lambda: "sim_echo" in gateway.run("usage").stdout, SHOWN_SECONDS * 3, gateway.logs)
    assert gateway.run("usage", "--by=day").stdout.startswith("day ")
    wrong = gateway.run("usage", "--by=shoe")
    assert (wrong.returncode, wrong.stderr) == (1, "gateway usage: no such group\n")


def test_the_command_lists_the_entries_that_the_api_has(gateway: StartedGateway) -> None:
    tag = f"listed-{time.time_ns()}"
    for _ in range(3):
        with OpenAI(
            base_url=f"{gateway.ready.base_url}/v1", api_key=gateway.ready.api_key
        ) as client:
            client.chat.completions.create(
                model="sim_echo",
                messages=[{"role": "user", "content": "one two"}],
                extra_body={"ollm::tags": {"test": tag}},
            )
    until(
        lambda: len(ask(gateway, "/v1/usage", tag=f"test={tag}")) == 3, SHOWN_SECONDS, gateway.logs
    )
    listed = gateway.run("usage", "list", "--tag", f"test={tag}")
    assert listed.returncode == 0, listed.stderr
    entries = json.loads(listed.stdout, parse_float=Decimal)
    assert entries == ask(gateway, "/v1/usage", tag=f"test={tag}")
    written = gateway.run("usage", "list", "--tag", f"test={tag}", "--limit=2", "--format=csv")
    head, *lines = written.stdout.splitlines()
    assert head.startswith("id,user_id,api_key_id,timestamp,model")
    assert len(lines) == 2
    misspelt = gateway.run("usage", "list", "--tag", "nothing")
    assert (misspelt.returncode, misspelt.stdout) == (1, "")


def test_the_command_lists_what_was_changed(gateway: StartedGateway) -> None:
    name = f"audited-{time.time_ns()}"
    assert gateway.run("users", "create", name).returncode == 0
    shown = gateway.run("audit", "--object-id", name, "--action", "user.create")
    (entry,) = json.loads(shown.stdout)
    assert (entry["actor"], entry["after"]["user_id"]) == ("cli", name)
