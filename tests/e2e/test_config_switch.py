"""Another catalog while requests run: nobody notices, everybody has it within a second."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from tests.e2e.started import StartedGateway

BUILT_IN = (files("shared") / "gateway.toml").read_text()
SWITCHES = 4
SWITCH_SECONDS = 1.0
LOOKS = 24
"""Each on a connection of its own, so that both API processes are asked."""
CLIENTS = 12
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Not spoken here: one that each client makes for itself reads the system's roots for 20 ms."""


@pytest.fixture
def gateway_restored(gateway: StartedGateway) -> Iterator[StartedGateway]:
    yield gateway
    assert gateway.run("config", "apply").returncode == 0


def catalog(folder: Path, number: int) -> Path:
    path = folder / f"catalog-{number}.toml"
    extra = f'\n[models.added_{number}]\nproviders = [{{ provider = "sim", upstream_model = "sim/echo" }}]\n'
    path.write_text(BUILT_IN + extra)
    return path


async def test_a_switch_under_load_fails_no_request_and_reaches_every_process(
    gateway_restored: StartedGateway, tmp_path: Path
) -> None:
    gateway = gateway_restored
    done, counted = asyncio.Event(), [0]
    failures: list[str] = []
    headers = {"authorization": f"Bearer {gateway.ready.api_key}"}
    async with (
        httpx.AsyncClient(base_url=gateway.ready.base_url, headers=headers, timeout=30) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CLIENTS):
            group.create_task(keep_asking(client, number, done, failures, counted))
        took = [await switch(gateway, catalog(tmp_path, n), n) for n in range(SWITCHES)]
        done.set()
    print(f"\n{counted[0]} requests during {SWITCHES} switches, seen after {took} s")
    assert failures == []
    assert counted[0] > 100
    assert max(took) <= SWITCH_SECONDS


async def keep_asking(
    client: httpx.AsyncClient,
    number: int,
    done: asyncio.Event,
    failures: list[str],
    counted: list[int],
) -> None:
    stream = number % 2 == 0
    body = {
        "model": "sim_echo",
        "messages": [{"role": "user", "content": "a b c"}],
        "stream": stream,
    }
    while not done.is_set():
        answer = await client.post("/v1/chat/completions", json=body)
        counted[0] += 1
        if answer.status_code != 200 or (stream and not answer.text.endswith("data: [DONE]\n\n")):
            failures.append(f"{answer.status_code} {answer.text[:200]}")


async def switch(gateway: StartedGateway, path: Path, number: int) -> float:
    """Seconds from the command's end until every look sees the new catalog."""
    applied = await asyncio.to_thread(gateway.run, "config", "apply", str(path))
    assert applied.returncode == 0, applied.stderr
    wanted = applied.stdout.split()[0]
    began = time.monotonic()
    while not await everybody_has(gateway, wanted):
        assert time.monotonic() - began < 10, f"catalog {number} is not seen everywhere"
    took = time.monotonic() - began
    await use(gateway, f"added_{number}")
    return round(took, 2)


async def everybody_has(gateway: StartedGateway, wanted: str) -> bool:
    async def look() -> str:
        async with httpx.AsyncClient(
            base_url=gateway.ready.base_url, timeout=10, verify=TLS
        ) as client:
            return str((await client.get("/status")).json()["config_hash"])

    return set(await asyncio.gather(*(look() for _ in range(LOOKS)))) == {wanted}


async def use(gateway: StartedGateway, model: str) -> None:
    """Its new model is served at once, by whichever worker gets it."""
    headers = {"authorization": f"Bearer {gateway.ready.api_key}"}
    body = {"model": model, "messages": [{"role": "user", "content": "new"}]}
    async with httpx.AsyncClient(
        base_url=gateway.ready.base_url, headers=headers, timeout=10
    ) as client:
        for _ in range(4):
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text


def test_what_a_catalog_would_change_can_be_read_first(
    gateway: StartedGateway, tmp_path: Path
) -> None:
    told = gateway.run("config", "diff", str(catalog(tmp_path, 9)))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("+ models.added_9 = ")
    assert "nothing: " in gateway.run("config", "diff").stdout


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("\n[models.x\n", f"line {BUILT_IN.count(chr(10)) + 2}"),
        ("\n[models.x]\nproviders = 1\n", "models"),
        ('\n[models.x]\nproviders = [{ provider = "nobody", upstream_model = "x" }]\n', "nobody"),
        ("\n[unheard_of]\na = 1\n", "unheard_of"),
    ],
    ids=["syntax", "type", "reference", "unknown"],
)
def test_a_broken_catalog_changes_nothing_and_says_where(
    gateway: StartedGateway, tmp_path: Path, broken: str, said: str
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(BUILT_IN + broken)
    before = httpx.get(f"{gateway.ready.base_url}/status").json()["config_hash"]
    refused = gateway.run("config", "apply", str(path))
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert httpx.get(f"{gateway.ready.base_url}/status").json()["config_hash"] == before
