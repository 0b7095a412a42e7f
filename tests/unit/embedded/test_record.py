"""Unit: a record names one process, not whoever has its pid later."""

import os
import subprocess
import sys
from pathlib import Path

from shared.embedded.record import ProcessRecord, command_name


def test_a_record_written_is_the_record_read(tmp_path: Path) -> None:
    record = ProcessRecord.of(os.getpid())
    record.write(tmp_path / "r.json")
    assert ProcessRecord.read(tmp_path / "r.json") == record
    assert record.is_running


def test_the_same_pid_born_at_another_moment_is_another_process() -> None:
    ours = ProcessRecord.of(os.getpid())
    assert ours.born is not None
    assert not ProcessRecord(ours.pid, ours.born + "1").is_running


def test_a_process_that_ended_is_not_running_even_while_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    record = ProcessRecord.of(child.pid)
    alive = record.is_running
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet reaped
    zombie = record.is_running
    child.communicate()
    assert (alive, zombie, record.is_running) == (True, False, False)


def test_a_missing_or_broken_record_is_none(tmp_path: Path) -> None:
    assert ProcessRecord.read(tmp_path / "none.json") is None
    (tmp_path / "cut.json").write_text('{"pid":12')
    assert ProcessRecord.read(tmp_path / "cut.json") is None


def test_a_process_has_the_name_of_its_program() -> None:
    name = command_name(os.getpid())
    assert name is not None
    assert "postgres" not in name
    child = subprocess.Popen(["/bin/sleep", "0"])
    child.wait()
    assert command_name(child.pid) is None
