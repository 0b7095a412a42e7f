"""Receipts as users meet them: asked for by the id of a request, taken away, verified without us; and
none is lost or doubled whoever dies while they are made."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.postgres.engine import make_engine
from tests.e2e.chaos import Killer, pace
from tests.e2e.started import StartedGateway, until

SETTLE_SECONDS = 30.0
KILLS = 20
VERIFY = """
import socket, sys
def refuse(*_): raise OSError("there is no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from api.cli import main
sys.argv[0] = "gateway"
main()
"""


class Client:
    """Asks as an application does."""

    def __init__(self, gateway: StartedGateway) -> None:
        ready = gateway.ready
        self.http = httpx.Client(
            base_url=ready.base_url, headers={"authorization": f"Bearer {ready.api_key}"},
            timeout=60,
        )  # fmt: skip

    def ask(self, model: str, *, stream: bool = True) -> str:
        """The request's id."""
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
        answer = self.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-request-id"]

    def receipt(self, request_id: str) -> dict[str, Any]:
        """Once it is settled and in the log."""
        found: dict[str, Any] = {}

        def settled() -> bool:
            answer = self.http.get(f"/v1/receipts/{request_id}")
            found.clear()
            if answer.status_code == 200:
                found.update(answer.json())
            return bool(found.get("log"))

        until(settled, SETTLE_SECONDS, lambda: json.dumps(found)[:2000])
        return found


@pytest.fixture
def client(gateway: StartedGateway) -> Iterator[Client]:
    made = Client(gateway)
    with made.http:
        yield made


def verified_elsewhere(
    folder: Path, receipt: dict[str, Any], roots: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """By the command alone: no gateway, no stores, no network, nothing in the environment."""
    file = folder / "receipt.json"
    file.write_text(json.dumps(receipt))
    (folder / "roots.json").write_bytes(roots.read_bytes())
    command = ["receipts", "verify", str(file), "--roots", str(folder / "roots.json")]
    return subprocess.run(
        [sys.executable, "-c", VERIFY, *command, "--allow-synthetic", *options],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
def test_a_receipt_is_taken_away_and_verified_without_us(
    gateway: StartedGateway, client: Client, tmp_path: Path, stream: bool
):
    receipt = client.receipt(client.ask("phala_sim_chat", stream=stream))
    assert receipt["receipt"]["label"] == "verified", receipt["receipt"]["factors"]
    roots = gateway.data_dir / "tee" / "roots.json"
    verified = verified_elsewhere(tmp_path, receipt, roots)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "SYNTHETIC" in verified.stdout
    assert "NOT SHOWN" in verified.stdout.splitlines()[-1]
    keys = client.http.get("/v1/log/head").json()["keys"]
    known = ("--gateway-key", keys[0]["public_key"], "--require-log")
    verified = verified_elsewhere(tmp_path, receipt, roots, *known)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "NOT SHOWN" not in verified.stdout
    receipt["receipt"]["model"] = "another"
    assert verified_elsewhere(tmp_path, receipt, roots).returncode == 1


def test_production_roots_refuse_what_a_simulator_proves(
    gateway: StartedGateway, client: Client, tmp_path: Path
):
    receipt = client.receipt(client.ask("phala_sim_chat"))
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    refused = gateway.run("receipts", "verify", str(file))
    assert refused.returncode != 0


def test_zero_retention_has_a_policy_record(client: Client):
    receipt = client.receipt(client.ask("vercel_sim_chat"))["receipt"]
    assert (receipt["label"], receipt["kind"]) == ("n/a", "zdr")
    zdr = receipt["zdr"]
    assert (zdr["zero_data_retention"], zdr["disallow_prompt_training"]) == (True, True)
    assert zdr["generation_id"].startswith("gen_")
    assert zdr["final_provider"] == "simulator"


def test_plain_models_have_none(client: Client):
    assert client.http.get(f"/v1/receipts/{client.ask('sim_echo')}").status_code == 404


async def test_kills_lose_and_double_no_receipt(gateway: StartedGateway):
    await torment(gateway, requests=400, per_second=20.0)


@pytest.mark.torture
async def test_kills_at_full_size_lose_and_double_no_receipt(gateway: StartedGateway):
    await torment(gateway, requests=6000, per_second=60.0)


async def torment(gateway: StartedGateway, *, requests: int, per_second: float) -> None:
    """Background and worker are killed in turn, twenty times, while calls and collection run."""
    seed = int(os.environ.get("GATEWAY_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"\nseed {seed}", flush=True)
    killer = Killer(gateway, ("background", "worker"), random.Random(seed))
    complete: list[str] = []
    async with pace(gateway, first_token_ms=50, tokens_per_second=20), asyncio.TaskGroup() as all_:
        all_.create_task(killer.run(KILLS, requests / per_second))
        all_.create_task(asks(gateway, requests, per_second, complete))
    found = await asyncio.to_thread(settled_receipts, gateway, complete)
    labels = sorted(label for some in found.values() for _, label, _ in some)
    print(
        f"{requests} requests, {dict(killer.kills)}, {len(complete)} complete; "
        f"{ {label: labels.count(label) for label in set(labels)} }"
    )
    assert killer.kills.total() == KILLS
    assert len(complete) > requests / 3
    for request_id in complete:
        whole = [label for _, label, cause in found[request_id] if not cause]
        assert whole == ["verified"], (seed, request_id, found[request_id])
    ids = [receipt_id for some in found.values() for receipt_id, _, _ in some]
    assert len(ids) == len(set(ids))


async def asks(
    gateway: StartedGateway, requests: int, per_second: float, complete: list[str]
) -> None:
    """At a steady rate; keeps the ids of those whose streams came to their ends."""
    ready = gateway.ready
    headers = {"authorization": f"Bearer {ready.api_key}"}
    limits = httpx.Limits(max_connections=None)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        message = {"role": "user", "content": f"request {number} " + "word " * 10}
        body = {"model": "phala_sim_chat", "stream": True, "messages": [message]}
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.TransportError:
            return  # cut with its worker, and it shows
        if answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n"):
            complete.append(answer.headers["x-request-id"])

    async with (
        httpx.AsyncClient(
            base_url=ready.base_url, headers=headers, timeout=60, limits=limits
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(requests):
            group.create_task(one(client, number))
            await asyncio.sleep(1 / per_second)


def settled_receipts(
    gateway: StartedGateway, request_ids: list[str]
) -> dict[str, list[tuple[str, str, str]]]:
    """Receipt id, label and cause by request, once none is pending and all are in the log."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = asyncio.run(receipts_of(gateway, request_ids))
        done = all(index is not None for *_, index in rows)
        if done and {row[0] for row in rows} == set(request_ids):
            break
        assert time.monotonic() < deadline, (len(rows), len(request_ids), gateway.logs())
        time.sleep(0.2)
    found: dict[str, list[tuple[str, str, str]]] = {one: [] for one in request_ids}
    for request_id, receipt_id, label, cause, _ in rows:
        found[request_id].append((receipt_id, label, cause))
    return found


async def receipts_of(
    gateway: StartedGateway, request_ids: list[str]
) -> list[tuple[str, str, str, str, int | None]]:
    engine = make_engine(gateway.ready.database_url, "test")
    query = text(
        "SELECT request_id::text, receipt_id::text, label,"
        " COALESCE(document::json->>'cause', ''), log_index"
        " FROM receipts WHERE request_id = ANY(CAST(:ids AS uuid[]))"
    )
    try:
        async with engine.connect() as connection:
            found = await connection.execute(query, {"ids": request_ids})
            return [tuple(row) for row in found]
    finally:
        await engine.dispose()
