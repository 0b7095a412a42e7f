"""The page of `gateway queue`."""

from api.cli.queue import processes_text, shard_text
from shared.valkey.inspect import LaneView, ShardView
from shared.valkey.processes import ProcessEntry

VIEW = ShardView(
    shard=0,
    lanes=[
        LaneView(
            lane="priority",
            waiting=12,
            running=3,
            lag=None,
            oldest_waiting=0.25,
            oldest_running=None,
            claims={"0123456789abcdef": 2, "fedcba9876543210": 1},
        )
    ],
    buried=4,
    sealed_bytes=1024,
    spend_backlog=5,
    spend_quarantined=0,
    receipt_backlog=6,
    receipts_quarantined=7,
)


def test_a_lane_is_a_line_with_its_counts_ages_and_claims():
    head, line = shard_text(VIEW).splitlines()[1:3]
    assert head.split("  ")[0] == "lane"
    assert line.split() == ("priority 12 3 - 0.2 s - 89abcdef: 2, 76543210: 1".split())


def test_the_totals_are_named():
    assert "buried 4   sealed bytes 1024   spend backlog 5" in shard_text(VIEW)
    assert shard_text(VIEW).rstrip().endswith("receipt backlog 6   receipts quarantined 7")


def test_processes_are_listed_by_role():
    entry = ProcessEntry(role="worker", host="a", pid=7, started_at=0.0, seen_at=0.0)
    lines = processes_text({"0123456789abcdef": entry}).splitlines()
    assert lines[1].split() == ["worker", "89abcdef", "a", "7"]
