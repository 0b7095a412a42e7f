"""`gateway up` keeps its promises: it starts, mends, rolls over, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.started import StartedGateway, mentioning, runs, until
from tests.servers import open_folder

MEND_SECONDS = 20.0
ROLES = ("api", "worker", "metering", "background", "simulator")
SERVERS = ("valkey", "postgres", "clickhouse")


@pytest.fixture(scope="module")
def module_gateway() -> Iterator[StartedGateway]:
    with (
        open_folder() as folder,
        StartedGateway(folder / "gateway", environment={"GATEWAY_LEASE_SECONDS": "1"}) as own,
    ):
        yield own


@pytest.fixture
def own_gateway(module_gateway: StartedGateway) -> StartedGateway:
    """One that a test may stop: one process of each role. The next test starts it again."""
    assert module_gateway.process is not None
    if module_gateway.process.poll() is not None:
        module_gateway.start()
    return module_gateway


def all_pids(gateway: StartedGateway) -> list[int]:
    return [pid for members in gateway.ready.pids.values() for pid in members]


def test_the_printed_curl_line_streams_an_answer(gateway: StartedGateway):
    (line,) = re.findall(r"^curl .*$", gateway.output.read_text(), re.MULTILINE)
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30)
    assert answer.returncode == 0, answer.stderr
    assert "hello" in answer.stdout
    assert answer.stdout.rstrip().endswith("data: [DONE]")


def test_ready_json_names_every_process_and_is_private(gateway: StartedGateway):
    pids = gateway.ready.pids
    assert {role: len(members) for role, members in pids.items()} == {
        role: 2 if role in ("api", "worker") else 1 for role in (*ROLES, *SERVERS)
    }
    assert all(runs(pid) for members in pids.values() for pid in members)
    assert (gateway.data_dir / "ready.json").stat().st_mode & 0o777 == 0o600


def test_a_second_start_on_the_same_directory_says_so_and_exits(gateway: StartedGateway):
    second = gateway.run("up", "--port=0")
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert gateway.ready.base_url in second.stderr


def test_a_taken_port_is_reported_at_once(gateway: StartedGateway, data_dir: Path):
    port = httpx.URL(gateway.ready.base_url).port
    other = StartedGateway(data_dir / "gateway", environment=gateway.environment)
    refused = other.run("up", f"--port={port}")
    assert refused.returncode == 1
    assert f"port {port}" in refused.stderr
    assert not (data_dir / "gateway" / "postgres").exists()


@pytest.mark.parametrize("role", [*ROLES, *SERVERS])
def test_a_killed_process_comes_back_and_ready_json_names_it(gateway: StartedGateway, role: str):
    before = gateway.ready.pids[role]
    killed = gateway.kill(role)

    def is_back() -> bool:
        now = gateway.ready.pids.get(role, [])
        return len(now) == len(before) and killed not in now and all(map(runs, now))

    until(is_back, MEND_SECONDS, gateway.logs)
    until(
        lambda: gateway.run("send", "hello again").stdout == "hello again\n",
        MEND_SECONDS,
        gateway.logs,
    )


def test_the_port_answers_all_the_time_while_api_processes_are_killed(gateway: StartedGateway):
    for _ in range(3):
        gateway.kill("api")
        # A connection may wait for the next process, but is never refused.
        with httpx.Client(base_url=gateway.ready.base_url, timeout=MEND_SECONDS) as client:
            assert client.get("/health/liveness").status_code == httpx.codes.OK


def test_send_prints_the_whole_answer(gateway: StartedGateway):
    sent = gateway.run("send", "tell me this")
    assert (sent.returncode, sent.stdout) == (0, "tell me this\n"), sent.stderr


def test_send_prints_a_stream(gateway: StartedGateway):
    sent = gateway.run("send", "one two three", "--stream")
    assert (sent.returncode, sent.stdout) == (0, "one two three\n"), sent.stderr


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_send_says_what_is_wrong_and_exits_with_1(gateway: StartedGateway, stream: str):
    sent = gateway.run("send", "hello", "--model=no_such_model", stream)
    assert sent.returncode == 1
    assert sent.stderr.startswith("gateway send: 404")
    assert sent.stdout == ""


def test_send_says_that_a_key_is_wrong(gateway: StartedGateway):
    sent = gateway.run("send", "hello", "--api-key=sk-ollm-nobody")
    assert sent.returncode == 1
    assert sent.stderr.startswith("gateway send: 401")


def test_send_says_that_a_stream_was_cut(gateway: StartedGateway):
    sent = gateway.run(
        "send", " ".join(["word"] * 60), "--model=sim_fault_cut_after_20", "--stream"
    )
    assert sent.returncode == 1
    assert sent.stderr.startswith("gateway send: ")


def test_queue_shows_every_lane_and_process(gateway: StartedGateway):
    shown = gateway.run("queue")
    assert shown.returncode == 0, shown.stderr
    for word in ("priority", "default", "flex", "batch", "spend backlog", *ROLES[:4]):
        assert word in shown.stdout, shown.stdout


@pytest.mark.parametrize("role", ["api", "worker", "metering", "background"])
def test_health_is_zero_for_a_live_process(gateway: StartedGateway, role: str):
    asked = gateway.run("health", role, f"--url={gateway.ready.base_url}")
    assert asked.returncode == 0, asked.stderr


def test_a_key_made_by_hand_works_until_it_is_revoked(gateway: StartedGateway):
    key = gateway.run("keys", "create", "--name=by hand").stdout.strip()
    assert gateway.run("send", "hello", f"--api-key={key}").returncode == 0
    assert gateway.run("keys", "revoke", key).returncode == 0
    until(
        lambda: "401" in gateway.run("send", "hello", f"--api-key={key}").stderr,
        MEND_SECONDS,
        gateway.logs,
    )


def test_sigterm_lets_a_stream_end_and_leaves_no_process_behind(own_gateway: StartedGateway):
    ready, pids = own_gateway.ready, all_pids(own_gateway)
    words = [f"word{n}" for n in range(40)]
    httpx.post(
        f"{ready.simulator_url}/_sim/config", json={"tokens_per_second": 40}
    ).raise_for_status()
    with httpx.stream(
        "POST",
        f"{ready.base_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {ready.api_key}"},
        json={
            "model": "sim_echo",
            "stream": True,
            "messages": [{"role": "user", "content": " ".join(words)}],
        },
        timeout=30.0,
    ) as response:
        lines = response.iter_lines()
        received = [next(lines) for _ in range(6)]
        assert own_gateway.process is not None
        own_gateway.process.send_signal(signal.SIGTERM)
        received += lines
    assert received[-2:] == ["data: [DONE]", ""] or received[-1] == "data: [DONE]", received[-3:]
    assert own_gateway.stop() == 0, own_gateway.logs()
    assert not (own_gateway.data_dir / "ready.json").exists()
    assert [pid for pid in pids if runs(pid)] == []
    if sys.platform == "linux":
        assert mentioning(str(own_gateway.data_dir), ready.database_url) == []


def test_a_restart_keeps_its_secrets_and_its_key(own_gateway: StartedGateway):
    first = own_gateway.ready
    assert own_gateway.stop() == 0
    second = own_gateway.start()
    assert (second.api_key, second.master_key) == (first.api_key, first.master_key)
    assert own_gateway.run("send", "still here").stdout == "still here\n"


def test_orphans_of_a_killed_supervisor_are_ended_by_the_next(own_gateway: StartedGateway):
    orphans = all_pids(own_gateway)
    own_gateway.stop(signal.SIGKILL)
    assert any(runs(pid) for pid in orphans)
    second = own_gateway.start()
    assert [pid for pid in orphans if runs(pid)] == []
    assert own_gateway.run("send", "hello").stdout == "hello\n"
    assert second.api_key


def test_an_interrupt_while_it_starts_leaves_nothing_behind(data_dir: Path):
    starting = StartedGateway(data_dir / "gateway")
    with starting.output.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "up", "--port=0", f"--data-dir={starting.data_dir}"],
            env=starting.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    until(lambda: (starting.data_dir / "servers").exists(), 30.0, starting.logs)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, starting.logs()
    if sys.platform == "linux":
        assert mentioning(str(starting.data_dir)) == []
    assert os.listdir(starting.data_dir)
