"""One real API process on real stores: its answers, its refusals, and how it leaves."""

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

import shared
from api.http_protocol import MAX_HEAD_BYTES
from shared.catalog import Catalog
from shared.clickhouse.client import ClickHouse
from shared.clickhouse.migrate import migrate as migrate_clickhouse
from shared.clickhouse.spend import SpendTable
from shared.clock import SystemClock
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import make_engine
from shared.postgres.keys import KeyOptions, KeyStore
from shared.postgres.migrate import migrate
from tests.spend_rows import spend_row

ROOT = Path(shared.__file__).parent.parent
MASTER = "a-master-key-for-tests"
CATALOG = Catalog.from_toml((ROOT / "shared" / "gateway.toml").read_text())
START_SECONDS = 30
IDS = ("x-request-id", "otari-request-id", "x-otari-request-id")


@pytest.fixture
async def environment(database_url, valkey_db, clickhouse_url) -> dict[str, str]:
    return await prepared(database_url, valkey_db, clickhouse_url)


async def prepared(database_url: str, valkey_db: str, clickhouse_url: str) -> dict[str, str]:
    """What a process needs to start, on stores of its own."""
    engine = make_engine(database_url, "release")
    await migrate(engine)
    await CatalogStore(engine).apply(CATALOG)
    await engine.dispose()
    return {
        **os.environ,
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_db,
        "CLICKHOUSE_URL": clickhouse_url,
        "GATEWAY_MASTER_KEY": MASTER,
        "GATEWAY_SEAL_KEYS": base64.b64encode(b"k" * 32).decode(),
        "GATEWAY_SIMULATOR_URL": "http://127.0.0.1:1",
        "GATEWAY_SIMULATOR_KEY": "x",
    }


@pytest.fixture
async def keys(environment) -> AsyncIterator[KeyStore]:
    engine = make_engine(environment["DATABASE_URL"], "test")
    yield KeyStore(engine, SystemClock())
    await engine.dispose()


class Process:
    """A started API process and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}"

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        async with asyncio.timeout(START_SECONDS):
            return await self._process.wait()


@asynccontextmanager
async def started(
    environment: dict[str, str], *options: str, listener: socket.socket | None = None
) -> AsyncIterator[Process]:
    """Gives it a listening socket, as the supervisor does, and waits until it is ready."""
    own = listener or socket.create_server(("127.0.0.1", 0), backlog=100)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", "--fd", str(own.fileno()), *options,
        env=environment, cwd=ROOT, pass_fds=(own.fileno(),), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    port = own.getsockname()[1]
    if listener is None:
        own.close()
    try:
        await _wait_for(process, "api_ready")
        yield Process(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        # Reads the log to its end, so that the pipe is closed with the process.
        await process.communicate()


async def _wait_for(process: asyncio.subprocess.Process, action: str) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(START_SECONDS):
        async for line in process.stderr:
            if json.loads(line)["action"] == action:
                return
    raise AssertionError(f"the process ended before {action}")


@pytest.fixture
async def process(environment) -> AsyncIterator[Process]:
    async with started(environment) as process:
        yield process


@pytest.fixture
async def client(process) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=process.base_url, timeout=10) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def assert_envelope(answer: httpx.Response, status: int, code: str | None) -> None:
    assert answer.status_code == status
    body = answer.json()
    assert set(body) == {"error", "detail"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    assert body["error"]["code"] == code
    assert len({answer.headers[name] for name in IDS}) == 1


async def test_it_answers_probes_without_a_key(client):
    answer = await client.get("/status")
    assert answer.json()["config_hash"] == CATALOG.hash
    assert (await client.get("/health")).json() == {
        "status": "healthy",
        "gateway": "ok",
        "postgres": "ok",
        "clickhouse": "ok",
        "valkey": "ok",
    }
    for prefix in ("", "/api/v1"):
        assert (await client.get(f"{prefix}/health/liveness")).json() == "I'm alive!"
        assert (await client.get(f"{prefix}/health/readiness")).status_code == 200
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'gateway_requests_total{method="GET"' in metrics.text
    assert "gateway_lane_depth{" in metrics.text
    assert 'route="/metrics"' not in metrics.text
    assert 'route="/status"' not in metrics.text


async def test_its_documents_list_every_route(client):
    assert (await client.get("/docs")).status_code == 200
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/v1/chat/completions", "/v1/models", "/status", "/health", "/metrics"} <= set(paths)


async def test_it_knows_its_callers_under_both_prefixes(client, keys):
    key, _ = await keys.create(KeyOptions(allowed_models=frozenset({"sim_echo"})))
    for prefix in ("/v1", "/api/v1"):
        answer = await client.get(f"{prefix}/models", headers=bearer(key.text))
        assert [entry["id"] for entry in answer.json()["data"]] == ["sim_echo"]
        answer = await client.get(f"{prefix}/models", headers=bearer(MASTER))
        assert len(answer.json()["data"]) > 10
        assert_envelope(await client.get(f"{prefix}/models"), 401, "missing_api_key")
        wrong = bearer(key.text[:-1] + ("x" if key.text[-1] != "x" else "y"))
        assert_envelope(await client.get(f"{prefix}/models", headers=wrong), 401, "invalid_api_key")


async def test_a_revoked_key_stops_working_within_a_second(client, keys):
    key, _ = await keys.create()
    headers = bearer(key.text)
    for _ in range(10):
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
    await keys.revoke(key.public_id)
    loop = asyncio.get_running_loop()
    revoked_at = loop.time()
    while (await client.get("/v1/models", headers=headers)).status_code == 200:
        assert loop.time() - revoked_at <= 1.0
    assert_envelope(await client.get("/v1/models", headers=headers), 401, "invalid_api_key")


async def test_it_refuses_in_the_envelope_whatever_is_wrong(client, keys):
    key, _ = await keys.create()
    chat = "/v1/chat/completions"
    assert_envelope(await client.get("/nope"), 404, "route_not_found")
    wrong_method = await client.get(chat)
    assert_envelope(wrong_method, 405, None)
    assert wrong_method.headers["allow"] == "POST"
    assert_envelope(await client.post(chat, json={}), 401, "missing_api_key")
    ours = bearer(key.text)
    assert_envelope(
        await client.post(chat, json={}, headers=ours), 400, "missing_required_parameter"
    )
    answer = await client.post(
        chat, headers=ours, json={"model": "m", "messages": [{"role": "wizard"}]}
    )
    assert_envelope(answer, 400, "invalid_value")
    assert answer.json()["error"]["param"] == "messages.0.role"
    deep = {**ours, "content-type": "application/json"}
    assert_envelope(
        await client.post(chat, content=b"[" * 500_000, headers=deep), 400, "invalid_value"
    )
    text = {**ours, "content-type": "text/plain"}
    assert_envelope(
        await client.post(chat, content=b"{}", headers=text), 415, "unsupported_media_type"
    )


async def raw(port: int, *parts: bytes) -> bytes:
    """What comes back for these bytes, until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(process):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 200000000\r\n\r\n"
    answer = await raw(process.port, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"type":"request_too_large"' in answer


async def test_a_broken_or_endless_head_is_a_400_of_ours(process):
    for sent in (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET /" + b"a" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEAD_BYTES // 2 + 1) + b"\r\n",
    ):
        answer = await raw(process.port, sent)
        assert answer.startswith(b"HTTP/1.1 400 "), sent[:40]
        assert b"\r\nx-request-id: " in answer
        assert b'"type":"invalid_request_error"' in answer


async def test_a_drain_serves_who_had_reached_it_waits_for_what_runs_and_exits_well(
    environment, keys
):
    key, _ = await keys.create()
    chat = {"model": "sim_echo", "messages": [{"role": "user", "content": "x"}]}
    async with (
        started(environment, "--drain", "2") as process,
        httpx.AsyncClient(base_url=process.base_url, timeout=10) as busy,
        httpx.AsyncClient(base_url=process.base_url, timeout=10) as idle,
    ):
        assert (await idle.get("/health/readiness")).status_code == 200
        # No worker runs: this one waits in its lane until the drain gives up on it.
        running = asyncio.ensure_future(
            busy.post("/v1/chat/completions", json=chat, headers=bearer(key.text))
        )
        await asyncio.sleep(0.3)
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        process.terminate()
        await asyncio.sleep(0.15)
        served = await idle.get("/v1/models", headers=bearer(key.text))
        assert served.status_code == 200
        assert served.headers["connection"] == "close"
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient(base_url=process.base_url).get("/status")
        assert not running.done()
        assert await process.ended() == 0
        assert 1.5 < loop.time() - asked_at < 6
        assert_envelope(await running, 503, "draining")


async def test_an_idle_process_leaves_at_once(environment):
    async with started(environment, "--drain", "30") as process:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        process.terminate()
        assert await process.ended() == 0
        assert loop.time() - asked_at < 3


async def test_processes_that_share_a_socket_cover_for_each_other(environment):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        async with (
            started(environment, listener=listener) as one,
            started(environment, listener=listener) as other,
        ):
            one.terminate()
            for _ in range(50):
                async with httpx.AsyncClient(base_url=one.base_url, timeout=5) as client:
                    assert (await client.get("/status")).status_code == 200
            assert await one.ended() == 0
            async with httpx.AsyncClient(base_url=other.base_url) as client:
                assert (await client.get("/status")).status_code == 200


async def last_words(process):
    """What a process that ends by itself wrote; one that does not must not outlive its test."""
    try:
        async with asyncio.timeout(START_SECONDS):
            _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return log


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"GATEWAY_MASTER_KEY": ""}, "MasterKeyUnsafe"),
        ({"GATEWAY_MASTER_KEY": "changeme"}, "MasterKeyUnsafe"),
        ({"GATEWAY_SEAL_KEYS": ""}, "GATEWAY_SEAL_KEYS"),
        ({"DATABASE_URL": "postgresql+asyncpg://postgres@127.0.0.1:1/none"}, "ConnectionRefused"),
    ],
)
async def test_a_start_that_cannot_go_well_ends_with_its_reason(environment, changed, reason):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", "--port", "0",
        env={**environment, **changed}, cwd=ROOT, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    log = await last_words(process)
    assert process.returncode not in {0, None}
    assert reason in log.decode()


async def test_before_the_first_release_a_start_says_what_to_do(environment, database_url):
    engine = make_engine(database_url, "test")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM catalog_active")
    await engine.dispose()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", "--port", "0",
        env=environment, cwd=ROOT, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    log = await last_words(process)
    assert process.returncode not in {0, None}
    assert "gateway release" in log.decode()


async def test_a_file_of_usage_is_read_no_faster_than_it_is_taken_and_cut_where_it_fails(
    process, clickhouse_url: str
) -> None:
    await migrate_clickhouse(clickhouse_url)
    store, row = ClickHouse(clickhouse_url), spend_row()
    many = [replace(row, row_id=f"{at:032x}", request_id=f"{at:032x}") for at in range(70_000)]
    await SpendTable(store).insert(many, token="many")
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", process.port))
        plain.sendall(
            b"GET /v1/usage?format=csv HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer " + MASTER.encode() + b"\r\n\r\n"
        )
        taken = [plain.recv(1024)]
        assert taken[0].startswith(b"HTTP/1.1 200")
        await asyncio.sleep(1)  # time enough to read on, if nothing held it back
        await store.command("DROP TABLE spend_rows SYNC")
        while piece := plain.recv(1 << 16):
            taken.append(piece)
    answer = b"".join(taken)
    assert 1_000 < answer.count(b"sim_echo") < 70_000
    assert not answer.endswith(b"0\r\n\r\n"), "it must not seem to be whole"
    await store.close()
