"""What is charged: the database's price that was in force when a request was admitted."""

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.started import GATEWAY, StartedGateway, until

MODEL, KEY = "phala_sim_chat", "phala_sim:sim/chat"
PAYER = "payer-of-prices"
"""Whom the master key bills."""
SECONDS_TO_TAKE_EFFECT = 1.0
BUILT_IN = (files("shared") / "gateway.toml").read_text()


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[httpx.Client]:
    """With the master key. Prices that a test leaves behind are deleted."""
    headers = {"authorization": f"Bearer {gateway.ready.master_key}"}
    with httpx.Client(base_url=gateway.ready.base_url, headers=headers, timeout=30) as client:
        assert client.post("/v1/users", json={"user_id": PAYER}).status_code in (200, 409)
        yield client
        for key in (KEY, MODEL):
            client.delete(f"/v1/pricing/{key}")


def stores(gateway: StartedGateway) -> dict[str, str]:
    ready = gateway.ready
    return {
        "VALKEY_URL": ready.valkey_url,
        "DATABASE_URL": ready.database_url,
        "CLICKHOUSE_URL": ready.clickhouse_url,
    }


def put(client: httpx.Client, dollars: int, key: str = KEY, **more: Any) -> None:
    price = {"input_price_per_million": dollars, "output_price_per_million": dollars}
    answer = client.post("/v1/pricing", json={"model_key": key, **price, **more})
    assert answer.status_code == 200, answer.text


def ask(client: httpx.Client, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "one two"}]
    body = {"model": MODEL, "messages": messages, "user": PAYER, **more}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def dollars_per_million(client: httpx.Client) -> Decimal:
    """What a request pays now, by the header of its answer."""
    answer = ask(client)
    cost = Decimal(answer.headers["x-ollm-cost-usd"])
    return cost * 1_000_000 / int(answer.json()["usage"]["total_tokens"])


def becomes(client: httpx.Client, expected: Decimal | int, seconds: float) -> None:
    """Within the time, at each of the API processes: one request may be any's."""
    time.sleep(seconds)
    assert {dollars_per_million(client) for _ in range(6)} == {expected}


def entry(gateway: StartedGateway, client: httpx.Client, request_id: str) -> Any:
    """The request in the ledger."""
    found: list[Any] = []

    def is_there() -> bool:
        answer = client.get("/v1/usage", params={"start_date": time.time() - 60})
        entries = json.loads(answer.content, parse_float=Decimal)
        found[:] = [one for one in entries if one["id"] == request_id]
        return bool(found)

    until(is_there, 20, gateway.logs)
    return found[0]


def test_a_changed_price_is_charged_within_a_second_and_shown(
    gateway: StartedGateway, client: httpx.Client
) -> None:
    before = dollars_per_million(client)
    put(client, 3, MODEL)
    becomes(client, 3, SECONDS_TO_TAKE_EFFECT)
    put(client, 5)
    becomes(client, 5, SECONDS_TO_TAKE_EFFECT)
    answer = ask(client)
    charged = entry(gateway, client, answer.headers["x-request-id"])
    assert charged["cost"] == Decimal(answer.headers["x-ollm-cost-usd"])
    assert charged["cost"] * 1_000_000 == 5 * charged["total_tokens"]
    client.delete(f"/v1/pricing/{KEY}")
    becomes(client, 3, SECONDS_TO_TAKE_EFFECT)
    client.delete(f"/v1/pricing/{MODEL}")
    becomes(client, before, SECONDS_TO_TAKE_EFFECT)


def test_a_price_of_the_future_is_charged_from_its_second_on(client: httpx.Client) -> None:
    put(client, 2)
    at = datetime.now(UTC) + timedelta(seconds=4)
    put(client, 4, effective_at=at.isoformat())
    becomes(client, 2, SECONDS_TO_TAKE_EFFECT)
    assert datetime.now(UTC) < at, "the machine is too slow for this test"
    becomes(client, 4, (at - datetime.now(UTC)).total_seconds())


def test_a_stream_keeps_the_price_it_was_admitted_with(
    gateway: StartedGateway, client: httpx.Client
) -> None:
    put(client, 2)
    becomes(client, 2, SECONDS_TO_TAKE_EFFECT)
    pace = httpx.post(f"{gateway.ready.simulator_url}/_sim/config", json={"tokens_per_second": 20})
    assert pace.status_code == 200
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": " ".join(["word"] * 80)}],
        "stream": True,
        "user": PAYER,
    }
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as slow:
            lines = slow.iter_lines()
            assert next(lines).startswith("data: ")
            httpx.post(f"{gateway.ready.simulator_url}/_sim/config", json={"tokens_per_second": 0})
            put(client, 7)
            becomes(client, 7, SECONDS_TO_TAKE_EFFECT)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
    finally:
        httpx.post(f"{gateway.ready.simulator_url}/_sim/config", json={"tokens_per_second": 0})
    charged = entry(gateway, client, slow.headers["x-request-id"])
    assert charged["cost"] * 1_000_000 == 2 * charged["total_tokens"]


def test_a_catalog_brings_first_prices_where_there_are_none(
    gateway: StartedGateway, client: httpx.Client, tmp_path: Path
) -> None:
    put(client, 6, MODEL)
    file = tmp_path / "gateway.toml"
    price = "input_price_per_million = 8\noutput_price_per_million = 8\n"
    file.write_text(f'{BUILT_IN}\n[pricing."{MODEL}"]\n{price}[pricing."{KEY}"]\n{price}')
    try:
        applied = gateway.run("config", "apply", str(file))
        assert f"{KEY} has its first price" in applied.stdout, applied.stderr
        assert f"{MODEL} has" not in applied.stdout
        becomes(client, 8, SECONDS_TO_TAKE_EFFECT)
        client.delete(f"/v1/pricing/{KEY}")
        becomes(client, 6, SECONDS_TO_TAKE_EFFECT)
        released = subprocess.run(
            [*GATEWAY, "release"],
            env={**gateway.environment, **stores(gateway)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert released.returncode == 0, released.stderr
        becomes(client, 8, SECONDS_TO_TAKE_EFFECT)
    finally:
        assert gateway.run("config", "apply").returncode == 0
