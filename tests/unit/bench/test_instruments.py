"""What is read from the kernel and from the load generator, and what is said when a tool is missing."""

import os

import pytest

from bench.instruments import BenchFailed, compiler
from bench.load import Load, Target, arguments, parse
from bench.process import Stat, cpu_by_role, members_by_role, parse_stat

TICK = 1 / os.sysconf("SC_CLK_TCK")


def test_a_process_name_may_hold_brackets_and_spaces() -> None:
    line = "42 (a ) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 50 6 5 20 0 1 0"
    assert parse_stat(line) == Stat(parent=7, reaped_seconds=11 * TICK)


def test_a_role_does_not_count_what_another_role_counts() -> None:
    stats = {pid: Stat(parent, 0.0) for pid, parent in {1: 0, 2: 1, 3: 2, 4: 1, 5: 4}.items()}
    members = members_by_role({"up": [1], "api": [2], "gone": [99]}, stats)
    assert {role: sorted(pids) for role, pids in members.items()} == {
        "up": [1, 4, 5],
        "api": [2, 3],
        "gone": [],
    }


def test_this_process_has_used_some_cpu() -> None:
    before = cpu_by_role({"own": [os.getpid()]})["own"]
    sum(range(200_000))
    assert 0 < before < cpu_by_role({"own": [os.getpid()]})["own"]


def test_a_missing_compiler_is_named_with_its_remedy() -> None:
    with pytest.raises(BenchFailed, match="apt-get install gcc"):
        compiler(("no-such-compiler",))


def test_what_is_not_figures_is_refused_with_what_it_was() -> None:
    with pytest.raises(BenchFailed, match="Segmentation"):
        parse("Segmentation fault")


def test_only_streams_in_an_open_loop_are_asked_for_chunks_at_a_rate() -> None:
    target = Target(port=1, model="m", api_key="k", roles=dict)
    plain = arguments(Load(connections=2, requests=3), target)
    paced = arguments(Load(connections=2, requests=3, stream=True, per_second=8.0), target)
    assert "--stream" not in plain
    assert "--rate" not in plain
    assert paced[-5:] == ["--stream", "--chunks", "64", "--rate", "8.0"]
