"""ready.json is there or not, whole or not at all."""

from pathlib import Path

from api.cli.ready import Ready, read_ready, remove_ready, write_ready

READY = Ready(
    base_url="http://127.0.0.1:8000",
    api_key="sk-ollm-x",
    master_key="m",
    simulator_url=None,
    valkey_url="redis://127.0.0.1:1/0",
    database_url="postgresql+asyncpg://postgres@127.0.0.1:2/gateway",
    clickhouse_url="http://127.0.0.1:3/gateway",
    pids={"api": [1, 2]},
)


def test_what_is_written_is_read(tmp_path: Path):
    write_ready(tmp_path, READY)
    assert read_ready(tmp_path) == READY


def test_only_the_owner_may_read_it(tmp_path: Path):
    write_ready(tmp_path, READY)
    assert (tmp_path / "ready.json").stat().st_mode & 0o777 == 0o600


def test_no_file_is_no_gateway(tmp_path: Path):
    assert read_ready(tmp_path) is None
    write_ready(tmp_path, READY)
    remove_ready(tmp_path)
    remove_ready(tmp_path)
    assert read_ready(tmp_path) is None
