"""Integration: the three servers start, survive kills with their data, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import clickhouse_connect
import pytest
import redis
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError

from shared.embedded.process import EmbeddedServerError
from shared.embedded.record import ProcessRecord
from shared.embedded.server import ServerName
from shared.embedded.servers import EmbeddedServers, GivenUrls

PROJECT = Path(__file__).parents[2]
WAIT_LIMIT_SECONDS = 20.0

# Only one server is started where the test is about one: the others are said to exist.
ONLY_VALKEY = GivenUrls(postgres="postgresql://given/x", clickhouse="http://given/x")
ONLY_POSTGRES = GivenUrls(valkey="redis://given/0", clickhouse="http://given/x")
ONLY_CLICKHOUSE = GivenUrls(valkey="redis://given/0", postgres="postgresql://given/x")


@pytest.fixture
def started(data_dir: Path) -> Iterator[Callable[..., EmbeddedServers]]:
    """Starts servers on `data_dir`; stops them after the test."""
    all_started: list[EmbeddedServers] = []

    def start(**options) -> EmbeddedServers:
        embedded = EmbeddedServers(data_dir, fsync=False, **options)
        all_started.append(embedded)
        embedded.start()
        return embedded

    yield start
    for embedded in all_started:
        embedded.stop()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _kill(embedded: EmbeddedServers, name: ServerName) -> None:
    os.kill(embedded.pids[name], signal.SIGKILL)
    _wait_for(lambda: not embedded.alive()[name])


async def _postgres(embedded: EmbeddedServers) -> asyncpg.Connection:
    return await asyncpg.connect(embedded.urls.database_url.replace("+asyncpg", ""))


async def test_all_three_start_and_answer(started) -> None:
    began = time.monotonic()
    embedded = started()
    print(f"all three up after {time.monotonic() - began:.2f} s")
    urls = embedded.urls
    assert embedded.alive() == {"valkey": True, "postgres": True, "clickhouse": True}
    with redis.Redis.from_url(urls.valkey_url) as valkey:
        assert valkey.ping()
        config = valkey.config_get("append*", "maxmemory-policy", "save")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["save"] == ""
    connection = await _postgres(embedded)
    assert await connection.fetchval("SELECT current_database()") == "gateway"
    assert await connection.fetchval("SELECT 'b' < 'Z' COLLATE \"C\"") is False
    await connection.close()
    clickhouse = clickhouse_connect.get_client(dsn=urls.clickhouse_url)
    assert clickhouse.command("SELECT currentDatabase()") == "gateway"
    clickhouse.close()


def test_stopping_leaves_no_process_and_the_next_start_has_the_same_ports(started) -> None:
    embedded = started()
    urls, pids = embedded.urls, embedded.pids
    embedded.stop()
    assert [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()] == []
    assert started().urls == urls


def test_a_given_url_is_used_as_it_is_and_not_started(started) -> None:
    embedded = started(given=ONLY_VALKEY)
    assert set(embedded.pids) == {"valkey"}
    assert embedded.urls.clickhouse_url == "http://given/x"
    assert embedded.urls.database_url == "postgresql://given/x"


def test_a_killed_valkey_comes_back_with_every_acknowledged_write(started) -> None:
    embedded = started(given=ONLY_VALKEY)
    url = embedded.urls.valkey_url
    with redis.Redis.from_url(url) as valkey:
        for n in range(500):
            valkey.rpush("list", n)
        _kill(embedded, "valkey")
    embedded.restart("valkey")
    assert embedded.urls.valkey_url == url
    with redis.Redis.from_url(url) as valkey:
        assert valkey.llen("list") == 500


async def test_a_killed_postgres_comes_back_while_its_sessions_linger(started) -> None:
    embedded = started(given=ONLY_POSTGRES)
    connection = await _postgres(embedded)
    await connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")
    busy = [await _postgres(embedded) for _ in range(5)]
    _kill(embedded, "postgres")
    embedded.restart("postgres")
    for lost in [connection, *busy]:
        lost.terminate()
    connection = await _postgres(embedded)
    assert await connection.fetchval("SELECT a FROM t") == 7
    await connection.close()


def test_a_killed_clickhouse_comes_back_with_every_acknowledged_row(started) -> None:
    embedded = started(given=ONLY_CLICKHOUSE)
    client = clickhouse_connect.get_client(dsn=embedded.urls.clickhouse_url)
    client.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    rows = [(n, "x" * 100) for n in range(70_000)]  # several blocks, each compressed by itself
    for codec in ("lz4", "zstd", "gzip"):
        client.write_compression = codec
        client.insert("t", rows, column_names=["a", "b"])
    client.close()
    _kill(embedded, "clickhouse")
    embedded.restart("clickhouse")
    client = clickhouse_connect.get_client(dsn=embedded.urls.clickhouse_url)
    assert client.command("SELECT count() FROM t") == 3 * 70_000
    client.close()


def _insert_until_it_dies(client: Client) -> int:
    """The rows whose insert was answered."""
    acknowledged = 0
    try:
        while True:
            client.insert("t", [[n] for n in range(1000)], column_names=["a"])
            acknowledged += 1000
    except OperationalError:
        return acknowledged


def test_a_clickhouse_killed_while_it_inserts_keeps_what_it_has_acknowledged(started) -> None:
    embedded = started(given=ONLY_CLICKHOUSE)
    client = clickhouse_connect.get_client(dsn=embedded.urls.clickhouse_url)
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    killing = f"sleep 0.5; kill -9 {embedded.pids['clickhouse']}"
    killer = subprocess.Popen(["/bin/sh", "-c", killing])
    acknowledged = _insert_until_it_dies(client)
    killer.wait()
    client.close()
    embedded.restart("clickhouse")
    client = clickhouse_connect.get_client(dsn=embedded.urls.clickhouse_url)
    assert acknowledged > 0
    # The batch in flight may have been written before its answer was lost.
    assert client.command("SELECT count() FROM t") in (acknowledged, acknowledged + 1000)
    client.close()


def test_a_server_that_still_runs_can_be_restarted(started) -> None:
    embedded = started(given=ONLY_VALKEY)
    before = embedded.pids["valkey"]
    embedded.restart("valkey")
    assert embedded.alive() == {"valkey": True}
    assert embedded.pids["valkey"] != before


def test_one_data_directory_has_one_owner(started, data_dir: Path) -> None:
    embedded = started(given=ONLY_VALKEY)
    with pytest.raises(EmbeddedServerError, match="in use by another process"):
        EmbeddedServers(data_dir, given=ONLY_VALKEY).start()
    assert embedded.alive() == {"valkey": True}


def test_servers_that_outlived_their_owner_are_stopped_by_the_next(started, data_dir: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from shared.embedded.servers import EmbeddedServers\n"
        "embedded = EmbeddedServers(pathlib.Path(sys.argv[1]), fsync=False)\n"
        "embedded.start()\n"
        "print(*embedded.pids.values(), embedded.urls, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(data_dir)]
    killed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    *pids, _ = killed.stdout.split(" ", 3)
    orphans = [ProcessRecord.of(int(pid)) for pid in pids]
    assert [orphan.is_running for orphan in orphans] == [True, True, True]
    embedded = started()
    assert [orphan.is_running for orphan in orphans] == [False, False, False]
    assert str(embedded.urls) == killed.stdout.split(" ", 3)[3].strip()


def test_a_record_whose_pid_belongs_to_another_now_harms_nobody(started, data_dir: Path) -> None:
    bystander = subprocess.Popen(["/bin/sleep", "60"])
    (data_dir / "servers").mkdir(mode=0o700)
    ProcessRecord(bystander.pid, "long ago").write(data_dir / "servers" / "valkey.json")
    embedded = started(given=ONLY_VALKEY)
    assert embedded.alive() == {"valkey": True}
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_postgres_pid_file_that_names_another_program_is_no_obstacle(
    started, data_dir: Path
) -> None:
    embedded = started(given=ONLY_POSTGRES)
    pid_file = data_dir / "postgres" / "postmaster.pid"
    _kill(embedded, "postgres")
    lines = pid_file.read_text().splitlines()
    bystander = subprocess.Popen(["/bin/sleep", "60"], user="nobody" if os.geteuid() == 0 else None)
    pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
    embedded.restart("postgres")
    assert embedded.alive() == {"postgres": True}
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_cluster_whose_making_was_interrupted_is_made_anew(started, data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    assert started(given=ONLY_POSTGRES).alive() == {"postgres": True}


def test_a_remembered_port_that_is_taken_now_is_exchanged(started) -> None:
    embedded = started(given=ONLY_VALKEY)
    port = urlsplit(embedded.urls.valkey_url).port
    embedded.stop()
    with socket.create_server(("127.0.0.1", port)):
        embedded = started(given=ONLY_VALKEY)
        assert urlsplit(embedded.urls.valkey_url).port != port


@pytest.mark.parametrize(
    ("name", "given"),
    [("valkey", ONLY_VALKEY), ("postgres", ONLY_POSTGRES), ("clickhouse", ONLY_CLICKHOUSE)],
)
def test_a_fixed_port_that_is_taken_is_an_error_that_shows_the_log(
    data_dir: Path, name: ServerName, given: GivenUrls
) -> None:
    # Bound, not listening: nobody else's server can answer in its place.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        embedded = EmbeddedServers(data_dir, ports={name: port}, given=given, fsync=False)
        with pytest.raises(EmbeddedServerError, match=r"(?i)address already in use"):
            embedded.start()
    assert embedded.pids == {}
    # The failed start gave the directory back.
    again = EmbeddedServers(data_dir, given=given, fsync=False)
    again.start()
    again.stop()
