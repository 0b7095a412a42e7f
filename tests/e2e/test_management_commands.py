"""`gateway users`, `budgets`, `pricing` and `keys` beside a running gateway: what the routes do."""

import json
import uuid
from typing import Any

import httpx
import redis

from tests.e2e.started import StartedGateway, until

SECONDS_TO_TAKE_EFFECT = 5.0
"""One, and a slow start of the commands that look."""


def said(gateway: StartedGateway, *arguments: str) -> str:
    done = gateway.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(gateway: StartedGateway, *arguments: str) -> Any:
    return json.loads(said(gateway, *arguments))


def read(gateway: StartedGateway, path: str) -> Any:
    headers = {"authorization": f"Bearer {gateway.ready.master_key}"}
    return httpx.get(f"{gateway.ready.base_url}/v1{path}", headers=headers, timeout=10).json()


def test_a_budget_and_its_user_are_managed_by_hand_as_by_the_api(gateway: StartedGateway) -> None:
    user = f"u-{uuid.uuid4().hex}"
    budget = said(gateway, "budgets", "create", "--max-budget=0.10", "--duration-sec=60")
    assert budget in said(gateway, "budgets", "list")
    changed = shown(gateway, "budgets", "update", budget, "--max-budget=12.5")
    assert (
        changed == read(gateway, f"/budgets/{budget}") == shown(gateway, "budgets", "show", budget)
    )
    assert (changed["max_budget"], changed["budget_duration_sec"]) == (12.5, 60)

    said(gateway, "users", "create", user, "--alias=By hand", f"--budget={budget}")
    assert shown(gateway, "users", "show", user) == read(gateway, f"/users/{user}")
    said(gateway, "users", "update", user, "--block")
    (line,) = (one for one in said(gateway, "users", "list").splitlines() if one.startswith(user))
    assert line.split()[1:3] == ["default", "blocked"]
    said(gateway, "budgets", "delete", budget)
    assert read(gateway, f"/users/{user}")["budget_id"] is None
    said(gateway, "users", "delete", user)
    for family, name in (("users", user), ("budgets", budget)):
        gone = gateway.run(family, "show", name)
        assert gone.returncode == 1
        assert gone.stderr.strip().endswith("not found")
    log = read(gateway, f"/audit?object_id={user}")
    assert [(one["actor"], one["action"]) for one in log] == [
        ("cli", "user.delete"), ("cli", "user.update"), ("cli", "user.create")
    ]  # fmt: skip


def test_a_price_is_set_and_deleted_by_hand(gateway: StartedGateway) -> None:
    name = uuid.uuid4().hex
    made = shown(gateway, "pricing", "create", f"OpenAI/{name}", "0.15", "0.60")
    assert made["model_key"] == f"openai:{name}"
    assert shown(gateway, "pricing", "show", f"openai:{name}") == made
    assert f"openai:{name}" in said(gateway, "pricing", "list")
    assert len(said(gateway, "pricing", "history", f"openai:{name}").splitlines()) == 2
    said(gateway, "pricing", "delete", f"openai:{name}")
    refused = gateway.run("pricing", "create", "openai:m", "x", "1")
    assert refused.returncode == 1
    assert refused.stderr.startswith("gateway: input_price_per_million: Input should be")
    assert gateway.run("pricing", "create", "nobody:m", "1", "1").returncode == 1


def test_one_amount_of_a_price_is_changed_at_its_time(gateway: StartedGateway) -> None:
    key = f"openai:{uuid.uuid4().hex}"
    first = shown(gateway, "pricing", "create", key, "1", "2", "--cache-read-price=0.5")
    changed = shown(gateway, "pricing", "update", key, "--output-price=2.25")
    said_then = {"output_price_per_million": 2.25, "updated_at": changed["updated_at"]}
    assert changed == {**first, **said_then}
    assert len(said(gateway, "pricing", "history", key).splitlines()) == 2
    absent = gateway.run("pricing", "update", key, "--output-price=1", "--effective-at=2100-01-01")
    assert absent.returncode == 1
    assert "has no price from 2100-01-01" in absent.stderr
    said(gateway, "pricing", "delete", key)


def test_list_prices_are_shown_and_taken_over_when_told_to(gateway: StartedGateway) -> None:
    command = ("pricing", "import", "--model=openai:gpt-4o")
    before = said(gateway, "pricing", "list")
    looked = gateway.run(*command)
    assert looked.returncode == 1, looked.stderr
    assert "openai:gpt-4o" in looked.stdout
    assert "nothing is written" in looked.stdout
    assert said(gateway, "pricing", "list") == before
    said(gateway, *command, "--accept")
    price = shown(gateway, "pricing", "show", "openai:gpt-4o")
    assert 0 < price["cache_read_price_per_million"] < price["input_price_per_million"]
    assert said(gateway, *command) == "nothing differs"
    (entry,) = read(gateway, "/audit?object_id=openai:gpt-4o&action=pricing.put")
    assert (entry["actor"], entry["before"]) == ("cli", None)
    said(gateway, "pricing", "delete", "openai:gpt-4o")
    unknown = gateway.run("pricing", "import", "--provider=sim")
    assert unknown.returncode == 0
    assert "genai-prices has no list of sim; --from names another's" in unknown.stderr


def test_a_key_is_changed_rotated_and_deleted_by_hand(gateway: StartedGateway) -> None:
    key = said(gateway, "keys", "create", "--name=by hand", "--allow-from=192.0.2.0/24")

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.get(f"{gateway.ready.base_url}/v1/models", headers=headers).status_code

    assert status(key) == 403
    freed = shown(gateway, "keys", "update", key, "--allow-from-everywhere", "--concurrent=3")
    assert freed["limits"]["concurrent"] == 3
    assert shown(gateway, "keys", "show", key) == freed
    until(lambda: status(key) == 200, SECONDS_TO_TAKE_EFFECT, gateway.logs)
    rotated = said(gateway, "keys", "rotate", key, "--overlap-seconds=3600")
    until(lambda: status(rotated) == 200, SECONDS_TO_TAKE_EFFECT, gateway.logs)
    assert status(key) == 200
    said(gateway, "keys", "delete", rotated)
    until(lambda: status(rotated) == 401, SECONDS_TO_TAKE_EFFECT, gateway.logs)
    again = gateway.run("keys", "revoke", rotated)
    assert again.returncode == 1
    assert rotated.rpartition("-")[2] not in again.stderr


def test_counters_are_reconciled_with_the_ledger_beside_a_running_gateway(
    gateway: StartedGateway,
) -> None:
    user = f"u-{uuid.uuid4().hex}"
    budget = said(gateway, "budgets", "create", "--max-budget=5", "--soft-budget=4")
    assert shown(gateway, "budgets", "show", budget)["soft_budget"] == 4
    said(gateway, "users", "create", user, f"--budget={budget}", "--requests-per-minute=50")
    key = said(gateway, "keys", "create", f"--user={user}", f"--budget={budget}")
    body = {"model": "sim_echo", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {key}"}
    chat = f"{gateway.ready.base_url}/v1/chat/completions"
    assert httpx.post(chat, json=body, headers=headers, timeout=30).status_code == 200
    assert said(gateway, "reconcile") == "every counter is right"
    found = shown(gateway, "users", "show", user)
    assert (found["limits"]["requests_per_minute"], found["reserved"]) == (50, 0)
    public_id = shown(gateway, "keys", "show", key)["public_id"]
    with redis.Redis.from_url(gateway.ready.valkey_url) as valkey:
        valkey.hincrby(f"{{s0}}:account:key:{public_id}", "spend", 7)
    differs = gateway.run("reconcile")
    assert (differs.returncode, f"key:{public_id}" in differs.stdout) == (1, True)
    assert "set" in said(gateway, "reconcile", "--fix")
    assert said(gateway, "reconcile") == "every counter is right"
    assert shown(gateway, "users", "resets", user) == shown(gateway, "keys", "resets", key) == []
